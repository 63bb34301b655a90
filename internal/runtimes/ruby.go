package runtimes

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// cRuby is the language of the ruby runtimes.
type cRuby struct{}

func (cRuby) name() string    { return "ruby" }
func (cRuby) product() string { return "Ruby" }

// executable is what Debian calls the program; /var/lang/bin has it as ruby, too.
func (cRuby) executable(s spec) string { return "ruby" + s.release }

func (cRuby) places(s spec) (system, home []string) {
	below := s.release + ".*/bin/ruby"
	return []string{"/usr/bin/ruby", "/usr/local/bin/ruby", "/opt/ruby-" + below},
		[]string{".rbenv/versions/" + below, ".rubies/ruby-" + below, ".asdf/installs/ruby/" + below, ".local/share/mise/installs/ruby/" + below, ".rvm/rubies/ruby-" + below}
}

// version asks Ruby, which must also find its standard library.
func (cRuby) version(_ spec, _ string, ask func(...string) (string, error)) (string, error) {
	return ask("--disable-gems", "-rjson", "-rlogger", "-rsocket", "-e", "puts RUBY_VERSION")
}

var rubyLibrary = regexp.MustCompile(`\.so\.([\d.]+)$`)

// recorded reads the version from the name of Ruby's shared library, or else the
// release from its folder of standard libraries.
func (cRuby) recorded(s spec, prefix string) string {
	libraries, _ := filepath.Glob(filepath.Join(prefix, "lib*/libruby*.so."+s.release+".*"))
	for _, path := range libraries {
		if m := rubyLibrary.FindStringSubmatch(path); m != nil {
			return m[1] // beside it may be what belongs to debuggers
		}
	}
	if info, err := os.Stat(filepath.Join(prefix, "lib/ruby", s.release+".0")); err == nil && info.IsDir() {
		return s.release
	}
	return ""
}

func (cRuby) prefix(program string) string { return filepath.Dir(filepath.Dir(program)) }

func (cRuby) relocated(s spec, usr string) []string {
	own := "ruby/" + s.release + ".0"
	dirs := []string{filepath.Join(usr, "lib/ruby/vendor_ruby"), filepath.Join(usr, "lib", own)}
	native, _ := filepath.Glob(filepath.Join(usr, "lib/*-linux-gnu", own)) // a fixed pattern
	return []string{"RUBYLIB=" + strings.Join(append(dirs, native...), ":")}
}

func (cRuby) registry(s spec, _ string) (source, error) { return newDebian(s) }

func (cRuby) bootstrap(r *Registry, _ spec, _ interpreter) (dir, digest string, err error) {
	t, err := embedded("bootstrap/ruby/*.rb")
	if err != nil {
		return "", "", err
	}
	dir, err = writeTree(filepath.Join(r.dir, "bootstrap"), t)
	return dir, t.digest(), err
}

func (cRuby) command(spec) []string {
	return []string{langDir + "/bin/ruby", runtimeDir + "/bootstrap.rb"}
}

func (cRuby) fit(command []string, _ int, _ map[string]string) []string { return command }

func (cRuby) environment(s spec) map[string]string {
	return map[string]string{
		"GEM_HOME": "/var/runtime",
		"GEM_PATH": "/var/task/vendor/bundle/ruby/" + s.release + ".0:/opt/ruby/gems/" + s.release + ".0",
		"RUBYLIB":  "/var/task:/var/runtime/lib:/opt/ruby/lib",
	}
}
