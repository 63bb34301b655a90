package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"lapwing.dev/lapwing/internal/invoke"
)

// upOptions are the flags of `lapwing up`.
type upOptions struct {
	data        string
	listen      string
	region      string
	tls         bool
	domains     []string
	concurrency int
	idle        time.Duration
	egress      bool
	debug       bool
}

func upCommand(data *string) *cobra.Command {
	var o upOptions
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Start Lapwing and serve until interrupted",
		Long: `Start Lapwing in the foreground. All state is in the data directory: a restart
finds everything that was acknowledged. Ctrl-C or SIGTERM lets the invocations
under way finish, and ends.

Sandboxes need root. Lapwing listens on loopback unless told otherwise.`,
		Example: `  sudo lapwing up
  sudo lapwing up --data ./data --listen 127.0.0.1:4566 --region eu-west-1`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.data = *data
			if err := o.check(); err != nil {
				return err
			}
			return up(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.listen, "listen", "127.0.0.1:4566", "address of the AWS endpoint; port 0 takes any free one")
	f.StringVar(&o.region, "region", "us-east-1", "the AWS Region to be")
	f.BoolVar(&o.tls, "tls", false, "serve HTTPS with a certificate of Lapwing's own authority (see AWS_CA_BUNDLE in `lapwing env`)")
	f.StringSliceVar(&o.domains, "domain", nil, "further host names of the endpoint, e.g. lapwing.example.org")
	f.IntVar(&o.concurrency, "concurrency", invoke.DefaultAccountLimit, "concurrent executions of the account")
	f.DurationVar(&o.idle, "idle-timeout", invoke.DefaultIdleTimeout, "how long an execution environment waits for work")
	f.BoolVar(&o.egress, "egress", true, "let functions reach the internet through this host")
	f.BoolVar(&o.debug, "debug", false, "log more, among it every request")
	return cmd
}

func (o *upOptions) check() error {
	if _, _, err := net.SplitHostPort(o.listen); err != nil {
		return usageError{fmt.Errorf("--listen %q: want HOST:PORT, e.g. 127.0.0.1:4566", o.listen)}
	}
	if o.concurrency < 1 {
		return usageError{fmt.Errorf("--concurrency %d: want at least 1", o.concurrency)}
	}
	if o.idle <= 0 {
		return usageError{fmt.Errorf("--idle-timeout %v: want more than 0", o.idle)}
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("sandboxes need root: run `sudo lapwing up`")
	}
	return nil
}

// up runs the server until ctx ends.
func up(ctx context.Context, o upOptions) error {
	logger := newLogger(o.debug)
	s, err := newServer(ctx, o, logger)
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "Lapwing %s is ready at %s (region %s, account %s).\n", version, s.endpoint.URL, s.endpoint.Region, s.credentials.AccountID())
	fmt.Fprintf(os.Stderr, "Point AWS clients at it:  eval \"$(%s env --data %s)\"\n", os.Args[0], o.data)
	err = s.wait(ctx)
	logger.Info("stopping: waiting for the requests and invocations under way")
	return s.close(err)
}

func newLogger(debug bool) *slog.Logger {
	o := &slog.HandlerOptions{Level: slog.LevelInfo}
	if debug {
		o.Level = slog.LevelDebug
	}
	if term.IsTerminal(int(os.Stderr.Fd())) {
		return slog.New(slog.NewTextHandler(os.Stderr, o))
	}
	return slog.New(slog.NewJSONHandler(os.Stderr, o))
}
