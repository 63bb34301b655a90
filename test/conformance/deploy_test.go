package conformance_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Folders in each language are deployed with the real builders and registries,
// and are the same package when they are deployed again.
func TestDeployFromFoldersWithTheirBuilders_Conformance(t *testing.T) {
	needs(t, "packages of npm and PyPI, and pip's and npm's own work")
	t.Parallel()
	if out, err := server.Run("runtimes", "add", "python3.13"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for name, tt := range map[string]struct {
		files   map[string]string
		runtime string
		want    string // the answer to "event"
	}{
		"npm": {map[string]string{
			"package.json": `{"name": "f", "version": "1.0.0", "type": "module", "dependencies": {"ms": "2.1.3"}}`,
			"index.mjs":    `import ms from "ms"; export const handler = async () => ms("2 days");`,
		}, nodeRuntime, "172800000"},
		"typescript": {map[string]string{
			"package.json": `{"name": "f", "version": "1.0.0", "dependencies": {"ms": "2.1.3"}, "devDependencies": {"esbuild": "0.25.0"}}`,
			"index.ts":     `import ms from "ms"; export const handler = async (event: string): Promise<string> => event + ms("1s");`,
		}, nodeRuntime, `"event1000"`},
		"pip": {map[string]string{
			"requirements.txt": "six==1.17.0\n",
			"app.py":           "import six\n\ndef handler(event, context):\n    return six.__version__\n",
		}, "python3.13", `"1.17.0"`},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for file, text := range tt.files {
				if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			fn := "deployed-" + name
			deploy := []string{"deploy", dir, "--name", fn, "--runtime", tt.runtime, "--memory", "1769", "--timeout", "60"}
			if out, err := server.Run(deploy...); err != nil || !strings.Contains(string(out), ":function:"+fn) {
				t.Fatalf("%v\n%s", err, out)
			}
			out, err := server.Run("invoke", fn, "--payload", `"event"`)
			if got := strings.TrimSpace(string(out)); err != nil || got != tt.want {
				t.Errorf("%v: got %s; want %s", err, got, tt.want)
			}
			before, err := server.Run("functions", "--json")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := server.Run(deploy...); err != nil {
				t.Fatal(err)
			}
			after, err := server.Run("functions", "--json")
			if err != nil {
				t.Fatal(err)
			}
			if revision(t, before, fn) != revision(t, after, fn) {
				t.Error("a second deployment changed the function")
			}
		})
	}
}

// revision is the RevisionId of a function, by what `lapwing functions --json`
// prints.
func revision(t *testing.T, list []byte, name string) string {
	t.Helper()
	var all []struct{ FunctionName, RevisionId string }
	if err := json.Unmarshal(list, &all); err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		if f.FunctionName == name {
			return f.RevisionId
		}
	}
	t.Fatalf("there is no function %s", name)
	return ""
}
