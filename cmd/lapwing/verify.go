package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"lapwing.dev/lapwing/cmd/lapwing/verify"
	"lapwing.dev/lapwing/internal/invoke"
	"lapwing.dev/lapwing/internal/runtimes"
)

func runtimesVerifyCommand(data *string) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "verify [RUNTIME...]",
		Short: "Check that runtimes behave as AWS's",
		Long: `Check that runtimes behave as AWS's: all that can be used here, or those that are
named. Functions of Lapwing's own are deployed and invoked on a server that is
started for this and ends with it; the one that may be running, its functions and
its logs are not touched. A check that fails makes the exit code 1.

  handlers   every form of handler
  context    what the context object tells
  errors     type, message and stack of a function's error
  init       the error of a function that cannot be loaded
  logging    what is printed and logged, also in several lines
  streaming  responses in parts, where the runtime has them
  time-out   a function that runs out of time, and the invocation after it
  SIGTERM    the end of an environment that has an extension`,
		Example: `  sudo lapwing runtimes verify
  sudo lapwing runtimes verify nodejs22.x java21 --json`,
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: completeRuntimes(data),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := openRuntimes(*data)
			if err != nil {
				return err
			}
			targets, err := verifyTargets(r.List(), args)
			if err != nil {
				return err
			}
			reports, err := verifyRuntimes(cmd.Context(), *data, targets)
			if err != nil {
				return err
			}
			if asJSON {
				err = printJSON(cmd, reports)
			} else {
				err = printReports(cmd.OutOrStdout(), reports)
			}
			if err == nil && slices.ContainsFunc(reports, verify.Report.Failed) {
				err = errors.New("a runtime does not behave as AWS's")
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON instead")
	return cmd
}

// verifyTargets returns the runtimes to verify: those named, even if they are
// missing, or all that are there.
func verifyTargets(all []runtimes.Listing, ids []string) (targets []verify.Target, err error) {
	if err := knownRuntimes(ids); err != nil {
		return nil, err
	}
	for _, l := range all {
		usable := l.Status != runtimes.StatusMissing && l.Status != runtimes.StatusUnhealthy
		if len(ids) == 0 && !usable && l.Status != runtimes.StatusUnhealthy || len(ids) > 0 && !slices.Contains(ids, l.ID) {
			continue
		}
		target := verify.Target{ID: l.ID, Version: l.Version}
		if !usable {
			target.Missing = l.Hint
		}
		targets = append(targets, target)
	}
	return targets, nil
}

// verifyRuntimes verifies on a server of its own that shares nothing with others
// but the runtimes of the data directory.
func verifyRuntimes(ctx context.Context, data string, targets []verify.Target) (_ []verify.Report, err error) {
	dir, err := os.MkdirTemp("", "lapwing-verify-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := os.Symlink(filepath.Join(data, runtimesDir), filepath.Join(dir, runtimesDir)); err != nil {
		return nil, err
	}
	o := upOptions{data: dir, listen: "127.0.0.1:0", region: "us-east-1", concurrency: invoke.DefaultAccountLimit, idle: invoke.DefaultIdleTimeout, snapshots: snapshotsOff}
	// What this says nothing about is as where nobody gives a flag.
	defaults := pflag.NewFlagSet("verify", pflag.ContinueOnError)
	o.edge.flags(defaults)
	o.locations.flags(defaults)
	o.node.flags(defaults)
	if err := o.check(); err != nil {
		return nil, err
	}
	s, err := newServer(ctx, o, slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})))
	if err != nil {
		return nil, err
	}
	defer func() { err = s.close(err) }()
	cfg, err := client(dir)
	if err != nil {
		return nil, err
	}
	return verify.Run(ctx, verify.Options{
		Lambda: lambda.NewFromConfig(cfg), Logs: cloudwatchlogs.NewFromConfig(cfg),
		Role:     "arn:aws:iam::" + s.credentials.AccountID() + ":role/verify",
		Progress: verifyProgress(),
	}, targets), nil
}

// verifyProgress shows on a terminal what is verified now.
func verifyProgress() func(runtime, check string) {
	if !term.IsTerminal(int(os.Stderr.Fd())) {
		return nil
	}
	return func(runtime, check string) { fmt.Fprintf(os.Stderr, "\r\033[K%s: %s\r", runtime, check) }
}

// printReports prints the table, and below it why checks failed.
func printReports(out io.Writer, reports []verify.Report) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintf(w, "RUNTIME\tVERSION\t%s\n", strings.ToUpper(strings.Join(verify.Names(), "\t")))
	var reasons []string
	told := map[string]bool{} // a runtime that is missing fails every check for one reason
	for _, r := range reports {
		fmt.Fprintf(w, "%s\t%s", r.Runtime, cmp.Or(r.Version, "-"))
		for _, c := range r.Checks {
			fmt.Fprintf(w, "\t%s", c.Result)
			if c.Result == verify.Failed && !told[r.Runtime+c.Reason] {
				told[r.Runtime+c.Reason] = true
				reasons = append(reasons, fmt.Sprintf("%s, %s: %s", r.Runtime, c.Name, c.Reason))
			}
		}
		fmt.Fprintln(w)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, reason := range reasons {
		fmt.Fprintln(out, "FAILED", reason)
	}
	return nil
}
