// Command awsgen writes the packages below internal/aws from the public AWS API
// models: for each service in a list of operations the Go types of its shapes,
// their descriptions for the wire codecs and validation, constructors of its
// errors, and an API interface for its behaviour to implement. It emits only
// what the listed operations reach.
//
//	go run ./cmd/awsgen -models DIR [-operations FILE] [-out DIR]
//
// DIR holds one JSON model a service, in botocore's format. The output is
// committed; nothing needs the models at build or run time.
package main

import (
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"go/format"
	"maps"
	"os"
	"path/filepath"
	"slices"
)

// list is one service's entry in the operations file.
type list struct {
	// Model is the model's name where it is not the package's, and Dir the
	// directory in which the package's is, where it is not the common one.
	Model, Dir string
	Operations []string         `json:"operations"`
	MaxBody    map[string]int64 `json:"maxBody"` // bytes, where not defaultMaxBody
	// XMLRoot names the root elements of outputs that the model leaves open.
	XMLRoot map[string]string `json:"xmlRoot"`
	// OpenEnums are enumerations whose values the service checks itself.
	OpenEnums []string `json:"openEnums"`
	// ValidationCode is the error code of a request that breaks a constraint.
	ValidationCode string `json:"validationCode"`
	// SerializationCode is the error code of a malformed JSON body, where it is
	// not the protocol's.
	SerializationCode string `json:"serializationCode"`
	// XMLNamespace is that of outputs, where the model leaves it open.
	XMLNamespace string `json:"xmlNamespace"`
	// BareErrors and ChecksValues are aws.Service's.
	BareErrors   bool `json:"bareErrors"`
	ChecksValues bool `json:"checksValues"`
}

// defaultMaxBody is the largest request of an operation that the list does not
// name: AWS's usual limit for API requests.
const defaultMaxBody = 1 << 20

func main() {
	models := flag.String("models", "", "directory of the API models (required)")
	operations := flag.String("operations", "internal/aws/operations.json", "list of operations a service")
	out := flag.String("out", "internal/aws", "directory of the generated packages")
	flag.Parse()
	if *models == "" || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(*models, *operations, *out); err != nil {
		fmt.Fprintln(os.Stderr, "awsgen:", err)
		os.Exit(1)
	}
}

func run(models, operations, out string) error {
	var lists map[string]list
	if err := readJSON(operations, &lists); err != nil {
		return err
	}
	for _, service := range slices.Sorted(maps.Keys(lists)) {
		l := lists[service]
		var m model
		if err := readJSON(filepath.Join(models, cmp.Or(l.Model, service)+".json"), &m); err != nil {
			return err
		}
		files, err := generate(service, &m, l)
		if err != nil {
			return fmt.Errorf("%s: %w", service, err)
		}
		if err := write(filepath.Join(out, filepath.FromSlash(l.Dir), service), files); err != nil {
			return err
		}
	}
	return nil
}

func readJSON(path string, v any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// generate returns the files of one service's package by name.
func generate(service string, m *model, l list) (map[string]string, error) {
	g := &generator{service: service, model: m, list: l}
	if err := g.collect(); err != nil {
		return nil, err
	}
	return map[string]string{
		"service.go": g.serviceFile(),
		"shapes.go":  g.shapesFile(),
		"enums.go":   g.enumsFile(),
		"errors.go":  g.errorsFile(),
		"schema.go":  g.schemaFile(),
	}, nil
}

func write(dir string, files map[string]string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for name, source := range files {
		path := filepath.Join(dir, name)
		if source == "" {
			if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
				return err
			}
			continue
		}
		b, err := format.Source([]byte(source))
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if err := os.WriteFile(path, b, 0o644); err != nil {
			return err
		}
	}
	return nil
}
