package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"lapwing.dev/lapwing/internal/credentials"
	"lapwing.dev/lapwing/internal/deploy"
	"lapwing.dev/lapwing/internal/deploy/stack"
	"lapwing.dev/lapwing/internal/runtimes"
)

// deployFlags are the flags of deploy.
type deployFlags struct {
	folder       deploy.Folder
	env, params  []string
	dryRun, yes  bool
	folderOnly   []string // names of flags
	templateOnly []string
}

func deployCommand(data *string) *cobra.Command {
	f := deployFlags{folderOnly: []string{"runtime", "handler", "memory", "timeout", "env", "role", "url"}, templateOnly: []string{"parameter"}}
	cmd := &cobra.Command{
		Use:   "deploy FOLDER|TEMPLATE",
		Short: "Deploy a function from a folder, or a stack from a SAM template",
		Long: `Deploy a function from a folder of source code: find out its runtime and handler,
install its dependencies or compile it (in a copy), package it, create or update
the function, and wait until it can be invoked. What no flag says stays as it is.
A file .lapwingignore names what to leave out, in the syntax of .dockerignore.

Or deploy a stack from an AWS SAM or CloudFormation template: show what would
change, property by property, ask, and make it so. What has left the template is
removed. Where there is no terminal to ask on, what removes or replaces something
wants --yes. A deployment that stopped goes on with the next. What Lapwing does
not have is refused before anything is changed. Values of parameters that are not
given stay as they were, but for NoEcho ones.

The ARN and the URL of a function, and the outputs of a stack, go to standard
output, all else to standard error.`,
		Example: `  sudo lapwing deploy ./hello
  sudo lapwing deploy ./hello --memory 512 --env STAGE=test --url public
  sudo lapwing deploy template.yaml --parameter Stage=test
  sudo lapwing deploy template.yaml --dry-run`,
		Args: exactArgs("FOLDER or TEMPLATE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := deployer(cmd, *data, f.yes)
			if err != nil {
				return err
			}
			d.DryRun = f.dryRun
			info, err := os.Stat(args[0])
			if err != nil {
				return err
			}
			if ext := filepath.Ext(args[0]); info.IsDir() || ext == ".zip" || ext == ".jar" {
				err = f.deployFolder(cmd, d, args[0])
			} else {
				err = f.deployTemplate(cmd, d, args[0])
			}
			return explainDeploy(err, *data)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.folder.Name, "name", "", "`NAME` of the function or stack (default: that of the folder)")
	flags.BoolVar(&f.folder.NoBuild, "no-build", false, "package the code as it is")
	flags.BoolVar(&f.dryRun, "dry-run", false, "only show what would change")
	flags.BoolVarP(&f.yes, "yes", "y", false, "do not ask")
	flags.StringVar(&f.folder.Runtime, "runtime", "", "`ID` of the runtime, such as nodejs22.x")
	flags.StringVar(&f.folder.Handler, "handler", "", "`HANDLER` of the function, such as index.handler")
	flags.Int32Var(&f.folder.MemoryMB, "memory", 0, "memory of the function in `MB`")
	flags.Int32Var(&f.folder.TimeoutSec, "timeout", 0, "timeout of the function in `SECONDS`")
	flags.StringArrayVar(&f.env, "env", nil, "`KEY=VALUE` of the function's environment (may be repeated)")
	flags.StringVar(&f.folder.Role, "role", "", "`ARN` of the function's role (default: one is made)")
	flags.StringVar(&f.folder.URL, "url", "", "function URL: `public`, iam (for signed requests), or none")
	flags.StringArrayVar(&f.params, "parameter", nil, "`KEY=VALUE` of a parameter of the template (may be repeated)")
	return cmd
}

// refuse refuses flags that mean nothing for what is deployed.
func (f *deployFlags) refuse(cmd *cobra.Command, names []string, what string) error {
	for _, name := range names {
		if cmd.Flags().Changed(name) {
			return usageError{fmt.Errorf("--%s is not for %s", name, what)}
		}
	}
	return nil
}

func (f *deployFlags) deployFolder(cmd *cobra.Command, d *deploy.Deployer, path string) (err error) {
	if err := f.refuse(cmd, f.templateOnly, "a folder"); err != nil {
		return err
	}
	if !slices.Contains([]string{"", "public", "iam", "none"}, f.folder.URL) {
		return usageError{fmt.Errorf("--url must be public, iam or none, not %q", f.folder.URL)}
	}
	f.folder.Path = path
	if f.folder.Env, err = pairs("env", f.env); err != nil {
		return err
	}
	if ext := filepath.Ext(path); ext != "" && f.folder.Name == "" && (ext == ".zip" || ext == ".jar") {
		f.folder.Name = strings.TrimSuffix(filepath.Base(path), ext)
	}
	return d.FromFolder(cmd.Context(), f.folder)
}

func (f *deployFlags) deployTemplate(cmd *cobra.Command, d *deploy.Deployer, path string) error {
	if err := f.refuse(cmd, f.folderOnly, "a template: the template says it"); err != nil {
		return err
	}
	params, err := pairs("parameter", f.params)
	if err != nil {
		return err
	}
	return d.FromTemplate(cmd.Context(), deploy.Stack{Path: path, Name: f.folder.Name, Parameters: params, NoBuild: f.folder.NoBuild})
}

// pairs reads values of KEY=VALUE.
func pairs(flag string, values []string) (map[string]string, error) {
	m := map[string]string{}
	for _, v := range values {
		key, value, ok := strings.Cut(v, "=")
		if !ok || key == "" {
			return nil, usageError{fmt.Errorf("--%s takes KEY=VALUE", flag)}
		}
		m[key] = value
	}
	return m, nil
}

func deployer(cmd *cobra.Command, data string, yes bool) (*deploy.Deployer, error) {
	cfg, err := client(data)
	if err != nil {
		return nil, err
	}
	root, err := credentials.Read(filepath.Join(data, credentialsDir))
	if err != nil {
		return nil, err
	}
	architecture := "x86_64"
	if runtime.GOARCH == "arm64" {
		architecture = "arm64"
	}
	return &deploy.Deployer{
		Clients:      stack.NewClients(cfg, root.AccountID),
		Newest:       func(language string) string { return newestRuntime(data, language) },
		Runtime:      func(id string) error { return runtimeProblem(data, id) },
		Architecture: architecture,
		Out:          cmd.OutOrStdout(), Log: cmd.ErrOrStderr(),
		Confirm: confirm(cmd, yes),
	}, nil
}

// newestRuntime is the newest runtime of a language that is there, "" if there is
// none or it cannot be told.
func newestRuntime(data, language string) (newest string) {
	r, err := openRuntimes(data)
	if err != nil {
		return "" // the server will say what it has
	}
	for _, l := range r.List() {
		if strings.HasPrefix(l.ID, language) && (l.Status == runtimes.StatusAdded || l.Status == runtimes.StatusHost) {
			newest = l.ID // they are listed with the newest last
		}
	}
	return newest
}

// runtimeProblem tells why functions cannot have a runtime here, nil if they can or
// it cannot be told.
func runtimeProblem(data, id string) error {
	r, err := openRuntimes(data)
	if err != nil {
		return nil // the server will say
	}
	_, err = r.Resolve(id)
	return err
}

// confirm returns what asks before a deployment. A function from a folder is
// asked about only if something is lost.
func confirm(cmd *cobra.Command, yes bool) func(deploy.Consequences) (bool, error) {
	return func(c deploy.Consequences) (bool, error) {
		if yes || !c.Template && !c.Loses {
			return true, nil
		}
		in, isFile := cmd.InOrStdin().(*os.File)
		if !isFile || !term.IsTerminal(int(in.Fd())) {
			if c.Loses {
				return false, errors.New("this removes or replaces what is there: say --yes if that is meant")
			}
			return true, nil
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "Make these %d changes? [y/N] ", c.Changes)
		answer, err := bufio.NewReader(in).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return false, err
		}
		answer = strings.ToLower(strings.TrimSpace(answer))
		return answer == "y" || answer == "yes", nil
	}
}

// explainDeploy explains errors of the server; those of a step say it already.
func explainDeploy(err error, data string) error {
	if _, ok := errors.AsType[*stack.Failure](err); ok {
		return err
	}
	return explain(err, data, "")
}

func stacksCommand(data *string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "stacks",
		Short: "List the stacks that were deployed from templates",
		Long: `List the stacks that lapwing deploy made from templates. What each is made of is
kept in a bucket of the account, lapwing-stacks-ACCOUNT-REGION.`,
		Example: `  sudo lapwing stacks
  sudo lapwing stacks remove shop`,
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, err := deployer(cmd, *data, true)
			if err != nil {
				return err
			}
			return explain(d.List(cmd.Context()), *data, "")
		},
	}
	var yes, dryRun bool
	remove := &cobra.Command{
		Use:   "remove STACK",
		Short: "Remove a stack with all of its resources",
		Long: `Remove a stack with all of its resources, but those that the template retains
(DeletionPolicy: Retain, and layers and versions that SAM keeps).`,
		Example: `  sudo lapwing stacks remove shop`,
		Args:    exactArgs("STACK"),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := deployer(cmd, *data, yes)
			if err != nil {
				return err
			}
			d.DryRun = dryRun
			return explainDeploy(d.Remove(cmd.Context(), args[0]), *data)
		},
	}
	remove.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	remove.Flags().BoolVar(&dryRun, "dry-run", false, "only show what would be removed")
	cmd.AddCommand(remove)
	return cmd
}
