// Command lapwing is the whole of Lapwing: `lapwing up` serves the AWS APIs and
// runs functions, the other subcommands help to use it. This package parses
// flags and wires the parts together; behaviour lives in the packages below
// internal.
package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// version is set by the linker.
var version = "unknown"

// Exit codes.
const (
	exitFailed      = 1
	exitUsage       = 2
	exitInterrupted = 130 // as shells have it
)

// usageError is a wrong use of the command line.
type usageError struct{ error }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends at once
	os.Exit(run(ctx, os.Args[1:]))
}

func run(ctx context.Context, args []string) int {
	root := rootCommand()
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return exitInterrupted
	}
	fmt.Fprintln(os.Stderr, "lapwing:", strings.TrimSpace(err.Error()))
	// Cobra has no type for an unknown command.
	if _, ok := errors.AsType[usageError](err); ok || strings.HasPrefix(err.Error(), "unknown command") {
		fmt.Fprintf(os.Stderr, "Run '%s --help' for usage.\n", cmd.CommandPath())
		return exitUsage
	}
	if errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "Lapwing's data directory belongs to root: run this with sudo.")
	}
	return exitFailed
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "lapwing",
		Short: "Run AWS Lambda functions on your own machines",
		Long: `Lapwing runs serverless functions on machines that you own, and speaks AWS:
your functions, your AWS CLI, SDKs and templates work as they are.

  sudo lapwing up                  start it; in another terminal:
  eval "$(sudo lapwing env)"       point this shell's AWS clients at it
  aws lambda list-functions        use it

Exit codes: 0 success, 1 failure, 2 wrong use of the command line.`,
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetVersionTemplate("{{.Version}}\n")
	var data string
	root.PersistentFlags().StringVar(&data, "data", defaultDataDir(), "`DIR` with all of Lapwing's state; LAPWING_DATA sets it too")
	root.PersistentPreRunE = func(*cobra.Command, []string) (err error) {
		data, err = filepath.Abs(data) // sandboxes mount what is in it
		return err
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(
		upCommand(&data),
		envCommand(&data),
		runtimesCommand(&data),
		deployCommand(&data),
		stacksCommand(&data),
		invokeCommand(&data),
		traceStartCommand(&data),
		logsCommand(&data),
		functionsCommand(&data),
		edgeCommand(&data),
		usageCommand(&data),
		versionCommand(),
	)
	root.InitDefaultCompletionCmd()
	if completion, _, err := root.Find([]string{"completion"}); err == nil {
		// Cobra's own takes a shell that it doesn't know for a call for help.
		completion.Args = cobra.ArbitraryArgs
		completion.RunE = func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("there is no completion for %q", args[0])}
			}
			return cmd.Help()
		}
	}
	return root
}

// exactArgs is cobra.ExactArgs with exit code 2 and a message that says what to
// give.
func exactArgs(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != len(names) {
			return usageError{fmt.Errorf("%q needs %s: %s", cmd.CommandPath(), strings.Join(names, " and "), cmd.UseLine())}
		}
		return nil
	}
}

// noArgs refuses arguments.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("%q takes no arguments, got %q", cmd.CommandPath(), args[0])}
	}
	return nil
}

func defaultDataDir() string {
	if dir := os.Getenv("LAPWING_DATA"); dir != "" {
		return dir
	}
	return "/var/lib/lapwing"
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "version",
		Short:             "Print the version",
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), version)
			return err
		},
	}
}
