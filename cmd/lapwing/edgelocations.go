package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"lapwing.dev/lapwing/internal/cluster"
	"lapwing.dev/lapwing/internal/edge/location"
)

func edgeCommand(data *string) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "edge",
		Short: "List edge locations, let new ones join, and remove them",
		Long: `List the edge locations that have joined the Lapwing of the data directory, which
must run with --edge-join. A location is a 'lapwing up --roles edge' elsewhere: it
serves the distributions by itself, and goes on when this Lapwing cannot be reached.`,
		Example: `  lapwing edge token FRA56-P1
  lapwing edge list
  lapwing edge remove FRA56-P1`,
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return printLocations(cmd, *data, asJSON) },
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.AddCommand(edgeListCommand(data), edgeTokenCommand(data), edgeRemoveCommand(data))
	return cmd
}

// operator calls the core that runs in a data directory, for f.
func operator(ctx context.Context, data string, f func(*location.Operator) error) error {
	ep, err := readEndpoint(data)
	if err != nil {
		return err
	}
	if ep.Nodes == "" {
		return errors.New("edge locations cannot join this Lapwing: start it with --edge-join HOST:PORT")
	}
	authority, err := cluster.OpenAuthority(filepath.Join(data, nodesDir))
	if err != nil {
		return err
	}
	o, err := location.NewOperator(authority, ep.Nodes)
	if err != nil {
		return err
	}
	defer o.Close()
	if err := f(o); errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("no Lapwing is running: nothing listens at %s. Start it with `lapwing up --data %s`", ep.Nodes, data)
	} else if err != nil {
		return err
	}
	return nil
}

func edgeListCommand(data *string) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the edge locations, and how far each is behind",
		Long: `List the edge locations. TIER is regional where a location is a regional edge
cache, which those of its Region ask before origins. STATE is current where a location has all that there is,
behind where it has not yet, silent where it has not reported for 5 seconds, and
away where it has been silent for so long that nothing waits for it. LAG is how
long it has not had all, and by how many revisions.`,
		Example:           "  lapwing edge list --json",
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return printLocations(cmd, *data, asJSON) },
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printLocations(cmd *cobra.Command, data string, asJSON bool) error {
	all := []location.Status{} // not null as JSON
	err := operator(cmd.Context(), data, func(o *location.Operator) error {
		listed, err := o.Locations(cmd.Context())
		all = append(all, listed...)
		return err
	})
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(cmd, all)
	}
	if len(all) == 0 {
		fmt.Fprintln(cmd.ErrOrStderr(), "No edge location has joined yet. Let one with `lapwing edge token NAME`")
		return nil
	}
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "LOCATION\tREGION\tTIER\tSTATE\tLAG\tLAST SEEN\tVERSION")
	for _, l := range all {
		seen := "not since the start"
		if !l.LastSeen.IsZero() {
			seen = time.Since(l.LastSeen).Round(100*time.Millisecond).String() + " ago"
		}
		lag := (time.Duration(l.LagSeconds * float64(time.Second))).Round(100 * time.Millisecond)
		tier := "edge"
		if l.Regional {
			tier = "regional"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%v, %d revisions\t%s\t%s\n", l.Name, l.Region, tier, l.State, lag, l.Behind, seen, l.Version)
	}
	return w.Flush()
}

func edgeTokenCommand(data *string) *cobra.Command {
	var ttl time.Duration
	cmd := &cobra.Command{
		Use:   "token LOCATION",
		Short: "Make a token with which an edge location can join",
		Long: `Make a token with which one edge location of this name can join, once. It is a
secret. The location keeps what it needs of it: later starts take none.

Names of locations are like those of CloudFront's, an airport's code first, as in
FRA56-P1: up to 32 letters, digits and hyphens.`,
		Example: `  lapwing edge token FRA56-P1
  # at the location, with the token in a file:
  sudo lapwing up --roles edge --join core.example.org:7422 --join-token @token`,
		Args:              exactArgs("LOCATION"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			if !cluster.ValidName(args[0]) {
				return usageError{fmt.Errorf("%q is no name for an edge location: want up to 32 letters, digits and hyphens", args[0])}
			}
			return operator(cmd.Context(), *data, func(o *location.Operator) error {
				token, err := o.Token(cmd.Context(), args[0], ttl)
				if err != nil {
					return err
				}
				_, err = fmt.Fprintln(cmd.OutOrStdout(), token)
				return err
			})
		},
	}
	cmd.Flags().DurationVar(&ttl, "ttl", time.Hour, "`TIME` that the token can be used, at most 720h")
	return cmd
}

func edgeRemoveCommand(data *string) *cobra.Command {
	return &cobra.Command{
		Use:   "remove LOCATION",
		Short: "Remove an edge location: it is cut off, and nothing waits for it",
		Long: `Remove an edge location. It is cut off at once and gets nothing more; what it has
it serves until it is stopped. Nothing waits for it any more. Under the same name
another one, or the same, can join with a new token.`,
		Example:           "  lapwing edge remove FRA56-P1",
		Args:              exactArgs("LOCATION"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			return operator(cmd.Context(), *data, func(o *location.Operator) error { return o.Remove(cmd.Context(), args[0]) })
		},
	}
}
