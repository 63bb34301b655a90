package source

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// language is a language that functions are written in.
type language struct {
	name string
	// family begins the ids of its runtimes.
	family string
	// manifests are files that tell of it, sources are patterns of files that
	// do if no manifest does.
	manifests, sources []string
	// fallback is the runtime if nothing says which.
	fallback string
	// modules are where a handler may be, without the extension; exports is
	// what declares one there.
	modules    []string
	extensions []string
	exports    *regexp.Regexp
	// layer is the folder of a layer that the runtime looks into.
	layer string
	// needed tells whether there is something to build.
	needed func(dir string) bool
	build  func(j *job, into string) error
}

// bootstrap is the language of what is there to be run as it is.
const bootstrap = "a bootstrap"

var always = func(string) bool { return true }

// languages are all, in the order in which they are looked for.
var languages = []*language{
	{name: "Go", family: "provided", manifests: []string{"go.mod"}, fallback: "provided.al2023", needed: always, build: (*job).goBuild},
	{name: "Rust", family: "provided", manifests: []string{"Cargo.toml"}, fallback: "provided.al2023", needed: always, build: (*job).cargo},
	{name: "Java", family: "java", manifests: []string{"pom.xml", "build.gradle", "build.gradle.kts"}, fallback: "java21", layer: "java", needed: always, build: (*job).java},
	{name: "Node.js", family: "nodejs", manifests: []string{"package.json"}, sources: []string{"*.mjs", "*.js", "*.cjs", "*.ts"}, fallback: "nodejs22.x",
		modules: []string{"index", "app", "handler"}, extensions: []string{".mjs", ".js", ".cjs", ".ts"}, layer: "nodejs",
		exports: regexp.MustCompile(`(?m)(?:^|;)\s*export\s+(?:const|let|var|async\s+function|function)\s+(handler|lambdaHandler)\b|exports\.(handler|lambdaHandler)\s*=|export\s*\{[^}]*\b(handler|lambdaHandler)\b`),
		needed:  func(dir string) bool { return len(packageJSON(dir).Dependencies) > 0 }, build: (*job).npm},
	{name: "Python", family: "python", manifests: []string{"requirements.txt", "pyproject.toml"}, sources: []string{"*.py"}, fallback: "python3.13",
		modules: []string{"lambda_function", "app", "handler", "main"}, extensions: []string{".py"}, layer: "python",
		exports: regexp.MustCompile(`(?m)^(?:def\s+(lambda_handler|handler)\s*\(|(lambda_handler|handler)\s*=)`),
		needed:  func(dir string) bool { return exists(dir, "requirements.txt") || exists(dir, "pyproject.toml") }, build: (*job).pip},
	{name: "Ruby", family: "ruby", manifests: []string{"Gemfile"}, sources: []string{"*.rb"}, fallback: "ruby3.3",
		modules: []string{"lambda_function", "app", "handler"}, extensions: []string{".rb"},
		exports: regexp.MustCompile(`(?m)^\s*def\s+(?:self\.)?(lambda_handler|handler)\b`),
		needed:  func(dir string) bool { return exists(dir, "Gemfile") }, build: (*job).bundle},
	{name: bootstrap, family: "provided", sources: []string{"bootstrap"}, fallback: "provided.al2023", needed: func(string) bool { return false }},
}

func exists(dir, name string) bool {
	_, err := os.Stat(filepath.Join(dir, name))
	return err == nil
}

func byManifest(dir string) (found []*language) {
	for _, l := range languages {
		if slices.ContainsFunc(l.manifests, func(m string) bool { return exists(dir, m) }) {
			found = append(found, l)
		}
	}
	return found
}

func bySource(dir string) (found []*language) {
	if exists(dir, "bootstrap") {
		return languages[len(languages)-1:]
	}
	for _, l := range languages {
		if slices.ContainsFunc(l.sources, func(pattern string) bool {
			files, _ := filepath.Glob(filepath.Join(escape(dir), pattern)) // the patterns are good
			return len(files) > 0
		}) {
			found = append(found, l)
		}
	}
	return found
}

// escape makes a path one that filepath.Glob takes literally.
func escape(path string) string {
	return regexp.MustCompile(`[\\*?\[]`).ReplaceAllString(path, `\$0`)
}

// byRuntime finds the language of a runtime, nil if there is none or nothing to
// build for it.
func byRuntime(runtime, dir string) *language {
	for _, l := range languages {
		if !strings.HasPrefix(runtime, l.family) {
			continue
		}
		if l.family != "provided" || slices.ContainsFunc(l.manifests, func(m string) bool { return exists(dir, m) }) {
			return l
		}
	}
	if strings.HasPrefix(runtime, "provided") {
		return languages[len(languages)-1]
	}
	return nil
}

// runtime chooses the runtime of a folder.
func (l *language) runtime(dir string, newest func(string) string) string {
	if l.family == "provided" {
		return l.fallback
	}
	if l.family == "nodejs" {
		if major := regexp.MustCompile(`\d+`).FindString(packageJSON(dir).Engines.Node); major != "" {
			return "nodejs" + major + ".x"
		}
	}
	if newest != nil {
		if id := newest(l.family); id != "" {
			return id
		}
	}
	return l.fallback
}

// handler finds the handler of a folder: a function with one of the usual names,
// in one of the usual files.
func (l *language) handler(dir string) (string, error) {
	if l.family == "provided" {
		return "bootstrap", nil
	}
	modules := l.modules
	if main := packageJSON(dir).Main; l.family == "nodejs" && main != "" {
		modules = []string{strings.TrimSuffix(strings.TrimPrefix(filepath.ToSlash(filepath.Clean(main)), "./"), filepath.Ext(main))}
	}
	var found []string
	for _, module := range modules {
		for _, ext := range l.extensions {
			b, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(module)+ext))
			if err != nil {
				continue
			}
			for _, m := range l.exports.FindAllStringSubmatch(string(b), -1) {
				if h := module + "." + strings.Join(m[1:], ""); !slices.Contains(found, h) {
					found = append(found, h)
				}
			}
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return "", fmt.Errorf("no handler was found in %s: name it with --handler, for example %s", dir, l.example())
	}
	return "", fmt.Errorf("%s has several functions that could be the handler: say which with --handler: %s", dir, strings.Join(found, ", "))
}

func (l *language) example() string {
	switch l.family {
	case "java":
		return "--handler example.Handler::handleRequest"
	case "nodejs":
		return "--handler index.handler (the file index.mjs exports handler)"
	}
	return "--handler app.lambda_handler (the file app defines lambda_handler)"
}

// manifest is what is read of a package.json.
type manifest struct {
	Main         string            `json:"main"`
	Dependencies map[string]string `json:"dependencies"`
	Engines      struct {
		Node string `json:"node"`
	} `json:"engines"`
}

// packageJSON reads a package.json; a broken one is npm's to complain about.
func packageJSON(dir string) (m manifest) {
	b, err := os.ReadFile(filepath.Join(dir, "package.json"))
	if err != nil || json.Unmarshal(b, &m) != nil {
		return manifest{}
	}
	return m
}
