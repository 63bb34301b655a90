// Package internal_test checks the rules of the house that no compiler knows.
package internal_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
)

const module = "lapwing.dev/lapwing/"

// layers lists the parts of the program from the top down. A package may import
// those below its own line, and packages below its own folder; never its own
// line's others or what is above. ARCHITECTURE.md shows the picture.
var layers = [][]string{
	{"test", "demo"},
	{"cmd"},
	{"internal/gateway", "internal/deploy"},
	{"internal/service", "internal/functionurl"},
	{"internal/worker", "internal/events", "internal/edge"},
	{"internal/invoke"},
	{"internal/image", "internal/network", "internal/runtimes", "internal/snapshot"},
	{"internal/sandbox"},
	{"internal/guest"},
	{"internal/registry"},
	{"internal/logstore", "internal/credentials", "internal/usage", "internal/metrics", "internal/stream"},
	{"internal/acme", "internal/cluster", "internal/httpserver", "internal/state", "internal/function", "internal/meter", "internal/trace"},
	{"internal/aws", "internal/authority", "internal/fsync", "internal/httpsyntax", "internal/jsonsyntax", "internal/killtest", "internal/quiet"},
}

// stdOnly lists packages that must stay small or free of the rest of the
// program, whatever the layers allow.
var stdOnly = []string{"internal/guest/proto"}

type pkg struct {
	ImportPath string
	Imports    []string
}

func packages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports", "./...")
	cmd.Dir = ".."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []pkg
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		if p.ImportPath == module+"internal" {
			continue // this test
		}
		all = append(all, p)
	}
}

// part returns the entry of layers that holds a package, and its layer.
func part(path string) (name string, layer int) {
	path = strings.TrimPrefix(path, module)
	for i, l := range layers {
		for _, p := range l {
			if path == p || strings.HasPrefix(path, p+"/") {
				return p, i
			}
		}
	}
	return "", -1
}

func TestImportsRunDownward(t *testing.T) {
	for _, p := range packages(t) {
		from, fromLayer := part(p.ImportPath)
		if fromLayer < 0 {
			t.Errorf("%s is in no layer: add its part to layers", p.ImportPath)
			continue
		}
		for _, imp := range p.Imports {
			if !strings.HasPrefix(imp, module) {
				continue
			}
			to, toLayer := part(imp)
			if from != to && toLayer <= fromLayer {
				t.Errorf("%s imports %s, which is not below it", p.ImportPath, imp)
			}
		}
	}
}

func TestServicesDoNotImportOneAnother(t *testing.T) {
	service := func(path string) string {
		rest, ok := strings.CutPrefix(path, module+"internal/service/")
		if !ok {
			return ""
		}
		name, _, _ := strings.Cut(rest, "/")
		return name
	}
	for _, p := range packages(t) {
		from := service(p.ImportPath)
		for _, imp := range p.Imports {
			if to := service(imp); from != "" && to != "" && from != to {
				t.Errorf("service %s imports service %s: declare a small interface instead", from, to)
			}
		}
	}
}

// A process pays for all that is linked into it, be it used or not: gVisor is
// for the sandboxes' program, and the rest of Lapwing for the server.
func TestServerAndSandboxProgramsShareLittle(t *testing.T) {
	for program, alien := range map[string]string{
		"cmd/lapwing":         "gvisor.dev/",
		"cmd/lapwing-sandbox": "github.com/nats-io/",
	} {
		cmd := exec.Command("go", "list", "-deps", "./"+program)
		cmd.Dir = ".."
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("go list: %v", err)
		}
		for path := range strings.Lines(string(out)) {
			if strings.HasPrefix(path, alien) {
				t.Errorf("%s links %s", program, strings.TrimSpace(path))
			}
		}
	}
}

func TestSmallPackagesStaySmall(t *testing.T) {
	for _, p := range packages(t) {
		for _, small := range stdOnly {
			if p.ImportPath != module+small {
				continue
			}
			for _, imp := range p.Imports {
				if strings.Contains(imp, ".") {
					t.Errorf("%s imports %s: it may use the standard library only", p.ImportPath, imp)
				}
			}
		}
	}
}
