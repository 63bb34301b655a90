package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"regexp"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"lapwing.dev/lapwing/internal/invoke"
	"lapwing.dev/lapwing/internal/snapshot"
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
	registries  string
	otlp        string
	debug       bool
	snapshots   string
	snapshotKey string
	snapshotMB  int
	snapshotAge time.Duration
	edge        edgeOptions
	locations   locationOptions
	acme        acmeOptions
	node        nodeOptions
	tiers       tierOptions
}

func upCommand(data *string) *cobra.Command {
	var o upOptions
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Start Lapwing and serve until interrupted",
		Long: `Start Lapwing in the foreground. All state is in the data directory: a restart
finds everything that was acknowledged. Ctrl-C or SIGTERM lets the invocations
under way finish, for 15 seconds at most, and ends; a second Ctrl-C ends at once.

Sandboxes need root. Lapwing listens on loopback unless told otherwise.`,
		Example: `  sudo lapwing up
  sudo lapwing up --data ./data --listen 127.0.0.1:4566 --region eu-west-1`,
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.data = *data
			if err := o.check(); err != nil {
				return err
			}
			return up(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.listen, "listen", "127.0.0.1:4566", "`HOST:PORT` of the AWS endpoint; port 0 takes any free one")
	f.StringVar(&o.region, "region", defaultRegion, "`NAME` of the AWS Region to be")
	f.BoolVar(&o.tls, "tls", false, "serve HTTPS with a certificate of Lapwing's own authority ('lapwing env' has its file)")
	f.StringSliceVar(&o.domains, "domain", nil, "`NAME` of a further host of the endpoint (may be repeated), e.g. lapwing.example.org")
	f.IntVar(&o.concurrency, "concurrency", invoke.DefaultAccountLimit, "`NUMBER` of concurrent executions of the account")
	f.DurationVar(&o.idle, "idle-timeout", invoke.DefaultIdleTimeout, "`TIME` that an execution environment waits for work")
	f.BoolVar(&o.egress, "egress", true, "let functions reach the internet through this host")
	f.StringVar(&o.registries, "registries", "", "`FILE` with logins and mirrors of container registries, and those at private addresses, as docker's config.json (default registries.json in the data directory, if there)")
	f.StringVar(&o.otlp, "otlp", "", "`URL` of an OpenTelemetry collector for spans, e.g. http://127.0.0.1:4318 (or set OTEL_EXPORTER_OTLP_ENDPOINT)")
	f.StringVar(&o.snapshots, "snapshots", snapshotsOn, "start environments from snapshots of initialised ones, by `MODE`: on, off, or for tests first, which makes each start wait for them, or runtimes, which makes each start wait for one of its runtime alone")
	f.StringVar(&o.snapshotKey, "snapshot-key", "", "`FILE` with the 32 bytes of a key to encrypt snapshots with")
	f.IntVar(&o.snapshotMB, "snapshot-space", 0, "`MB` of the disk for snapshots (default 10240, or a tenth of the disk)")
	f.DurationVar(&o.snapshotAge, "snapshot-age", snapshot.DefaultTTL, "`TIME` after which a snapshot is made anew")
	o.edge.flags(f)
	o.locations.flags(f)
	o.acme.flags(f)
	o.node.flags(f)
	o.tiers.flags(f)
	f.BoolVar(&o.debug, "debug", false, "log more, among it every request")
	return cmd
}

// defaultRegion is the AWS Region to be where the operator names none.
const defaultRegion = "us-east-1"

// regionName is what names of Regions look like: all but this would be refused by
// clients that parse ARNs and signatures.
var regionName = regexp.MustCompile(`^[a-z]{2,}(-[a-z]+)+-[0-9]+$`)

func (o *upOptions) check() error {
	if _, _, err := net.SplitHostPort(o.listen); err != nil {
		return usageError{fmt.Errorf("--listen %q: want HOST:PORT, e.g. 127.0.0.1:4566", o.listen)}
	}
	if !regionName.MatchString(o.region) {
		return usageError{fmt.Errorf("--region %q: want the name of an AWS Region, e.g. eu-west-1", o.region)}
	}
	if o.concurrency < 1 {
		return usageError{fmt.Errorf("--concurrency %d: want at least 1", o.concurrency)}
	}
	if o.registries != "" {
		if _, err := os.Stat(o.registries); err != nil {
			return usageError{fmt.Errorf("--registries: %w", err)}
		}
	}
	if o.idle <= 0 {
		return usageError{fmt.Errorf("--idle-timeout %v: want more than 0", o.idle)}
	}
	if err := errors.Join(o.edge.check(o.listen), o.locations.check(), o.node.check(o), o.tiers.check(o), o.acme.check(o), o.checkSnapshots()); err != nil {
		return err
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
	if s.member != nil {
		fmt.Fprintf(os.Stderr, "Lapwing %s is ready at %s: edge location %s (region %s, account %s).\n", version, s.endpoint.URL, s.location(), s.endpoint.Region, s.issuer.AccountID())
	} else {
		fmt.Fprintf(os.Stderr, "Lapwing %s is ready at %s (region %s, account %s).\n", version, s.endpoint.URL, s.endpoint.Region, s.credentials.AccountID())
		fmt.Fprintf(os.Stderr, "Point AWS clients at it:  eval \"$(%s env --data %s)\"\n", os.Args[0], o.data)
	}
	if err := forgetStart(); err != nil {
		logger.Warn("memory of the start was not given back", "error", err)
	}
	collectSeldom()
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
