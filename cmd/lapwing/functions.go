package main

import (
	"context"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"github.com/spf13/cobra"
)

func functionsCommand(data *string) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "functions",
		Short: "List the functions, and show the versions of one",
		Long: `List the functions of the account in this Region. They are made and changed by
lapwing deploy and by AWS clients: aws lambda create-function, SDKs, Terraform.`,
		Example: `  lapwing functions
  lapwing functions show hello
  lapwing functions --json`,
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return printFunctions(cmd, *data, asJSON) },
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the configurations as JSON")
	cmd.AddCommand(functionsListCommand(data), functionsShowCommand(data))
	return cmd
}

func functionsListCommand(data *string) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:               "list",
		Short:             "List the functions",
		Long:              "List the functions of the account in this Region, as 'lapwing functions' does.",
		Example:           "  lapwing functions list --json",
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return printFunctions(cmd, *data, asJSON) },
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the configurations as JSON")
	return cmd
}

func printFunctions(cmd *cobra.Command, data string, asJSON bool) error {
	cfg, err := client(data)
	if err != nil {
		return err
	}
	all, err := listFunctions(cmd.Context(), cfg)
	if err != nil {
		return explain(err, data, "")
	}
	if asJSON {
		return printJSON(cmd, all)
	}
	if len(all) == 0 {
		fmt.Fprintln(cmd.ErrOrStderr(), "There are no functions yet. Create one with `lapwing deploy FOLDER` or aws lambda create-function (see the README)")
		return nil
	}
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tRUNTIME\tMEMORY\tTIMEOUT\tCODE\tMODIFIED")
	for _, f := range all {
		fmt.Fprintf(w, "%s\t%s\t%d MB\t%d s\t%s\t%s\n", aws.ToString(f.FunctionName), f.Runtime,
			aws.ToInt32(f.MemorySize), aws.ToInt32(f.Timeout), size(f.CodeSize), aws.ToString(f.LastModified))
	}
	return w.Flush()
}

func listFunctions(ctx context.Context, cfg aws.Config) ([]types.FunctionConfiguration, error) {
	all := []types.FunctionConfiguration{} // not null as JSON
	pages := lambda.NewListFunctionsPaginator(lambda.NewFromConfig(cfg), &lambda.ListFunctionsInput{})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, err
		}
		all = append(all, page.Functions...)
	}
	return all, nil
}

// completeFunction completes the name of a function, where Lapwing runs.
func completeFunction(data *string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) (names []cobra.Completion, _ cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(cmd.Context(), 2*time.Second)
		defer cancel()
		cfg, err := client(*data)
		if err != nil || len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		all, err := listFunctions(ctx, cfg)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		for _, f := range all {
			names = append(names, aws.ToString(f.FunctionName))
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// size prints a number of bytes for people.
func size(n int64) string {
	switch {
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%d B", n)
}
