package verify

import (
	"archive/zip"
	"bytes"
	"embed"
	"io/fs"
	"path"
	"strings"
)

// The functions, a folder a language. Each knows the same operations; see the
// constants below. The classes of java are those of Conformance.java beside them.
//
//go:embed functions
var functions embed.FS

// Operations that the functions know; any other event is answered with its value.
const (
	opEcho    = "echo"
	opContext = "context"
	opFail    = "fail"
	opLog     = "log"
	opSleep   = "sleep"
	opStream  = "stream"
)

// suite is what the functions of one language do and what AWS's runtime makes
// of it.
type suite struct {
	folder   string
	handlers []string // the forms of handlers; the first knows all operations
	stream   string   // the handler that streams its response; "" where the runtime has none
	broken   string   // a handler that cannot be initialised, and
	initType string   // the errorType that comes of it
	failType string   // the errorType of the operation fail
	trace    string   // the member of an error that has the stack; "" for none
	logged   string   // what the operation log logs
}

// suiteOf returns the suite for a runtime, or nil.
func suiteOf(id string) *suite {
	const lines = "logged\nin lines"
	switch {
	case strings.HasPrefix(id, "nodejs"):
		s := &suite{"nodejs", []string{"index.handler", "module.handler", "index.callback"}, "index.stream",
			"missing.handler", "Runtime.ImportModuleError", "RangeError", "trace", lines}
		if id == "nodejs24.x" {
			s.handlers = s.handlers[:2] // AWS took callbacks out of Node.js 24
		}
		return s
	case strings.HasPrefix(id, "python"):
		return &suite{"python", []string{"app.handler", "pkg/app.handler", "pkg.app.handler"}, "",
			"missing.handler", "Runtime.ImportModuleError", "Broken", "stackTrace", lines}
	case strings.HasPrefix(id, "ruby"):
		return &suite{"ruby", []string{"app.handler", "app.Birds::Lapwing.handler", "lib/app.handler"}, "",
			"missing.handler", "Init<LoadError>", "Function<Broken>", "stackTrace", lines}
	case strings.HasPrefix(id, "java"):
		return &suite{"java", []string{"Conformance", "Conformance::handleRequest", "Conformance::method", "Conformance::pojo", "Conformance$Stream"}, "",
			"Missing", "java.lang.ClassNotFoundException", "Conformance$Broken", "stackTrace", lines}
	case strings.HasPrefix(id, "provided"):
		return &suite{"provided", []string{"any"}, "any", "broken", "Init.Broken", "Broken", "", "logged"}
	}
	return nil
}

// programs are the files that are executable.
var programs = []string{"bootstrap", "watch"}

// pack makes a code package or a layer of a folder of functions, below prefix.
func pack(folder, prefix string) ([]byte, error) {
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	root := path.Join("functions", folder)
	err := fs.WalkDir(functions, root, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		h := &zip.FileHeader{Name: path.Join(prefix, strings.TrimPrefix(name, root+"/")), Method: zip.Deflate}
		h.SetMode(0o644)
		for _, program := range programs {
			if d.Name() == program {
				h.SetMode(0o755)
			}
		}
		text, err := functions.ReadFile(name)
		if err != nil {
			return err
		}
		f, err := w.CreateHeader(h)
		if err != nil {
			return err
		}
		_, err = f.Write(text)
		return err
	})
	if err != nil {
		return nil, err
	}
	err = w.Close()
	return b.Bytes(), err
}
