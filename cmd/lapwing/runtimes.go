package main

import (
	"cmp"
	"encoding/json"
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
		Short: "Show which runtimes functions can use, and add more",
		Long: `Show what each runtime id resolves to on this host: an interpreter that is
installed here, or one that was added from a package registry. Another version
than the runtime's own is never used in its place.`,
		Example: `  sudo lapwing runtimes
  sudo lapwing runtimes add nodejs22.x python3.13`,
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := openRuntimes(*data)
			if err != nil {
				return err
			}
			all := r.List()
			if asJSON {
				e := json.NewEncoder(cmd.OutOrStdout())
				e.SetIndent("", "  ")
				return e.Encode(all)
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 2, ' ', 0)
			fmt.Fprintln(w, "RUNTIME\tSTATUS\tVERSION\tFROM, OR WHAT TO DO")
			for _, l := range all {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", l.ID, l.Status, cmp.Or(l.Version, "-"), cmp.Or(l.Hint, l.Source, "any bootstrap in the function's code"))
			}
			return w.Flush()
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON instead")
	cmd.AddCommand(runtimesAddCommand(data), runtimesRemoveCommand(data))
	return cmd
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
	return &cobra.Command{
		Use:   "add RUNTIME...",
		Short: "Add interpreters from a package registry",
		Long: `Add the interpreters of runtimes that this host does not have: Node.js from npm
packages that hold its binaries, Python from Debian packages. What is there
already is left as it is. A server that is running uses them at once.`,
		Example:           `  sudo lapwing runtimes add nodejs22.x python3.13`,
		Args:              someArgs("RUNTIME"),
		ValidArgsFunction: completeRuntimes(data),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := openRuntimes(*data)
			if err != nil {
				return err
			}
			for _, id := range args {
				if slices.ContainsFunc(r.List(), func(l runtimes.Listing) bool { return l.ID == id && l.Status == runtimes.StatusBuiltin }) {
					fmt.Fprintf(cmd.ErrOrStderr(), "%s needs no interpreter\n", id)
					continue
				}
				if rt, err := r.Resolve(id); err == nil {
					fmt.Fprintf(cmd.ErrOrStderr(), "%s is there: %s\n", id, rt.Version)
					continue
				}
				if err := r.Add(cmd.Context(), id, progressOf(id)); err != nil {
					return err
				}
				rt, err := r.Resolve(id)
				if err != nil {
					return err
				}
				fmt.Fprintf(cmd.ErrOrStderr(), "%s added: %s\n", id, rt.Version)
			}
			return nil
		},
	}
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
			r, err := openRuntimes(*data)
			if err != nil {
				return err
			}
			for _, id := range args {
				if err := r.Remove(id); err != nil {
					return err
				}
			}
			return nil
		},
	}
}
