package main

import (
	"encoding/json"
	"fmt"
	"text/tabwriter"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"github.com/spf13/cobra"
)

func functionsCommand(data *string) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "functions",
		Short: "List the functions",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := client(*data)
			if err != nil {
				return err
			}
			var all []types.FunctionConfiguration
			pages := lambda.NewListFunctionsPaginator(lambda.NewFromConfig(cfg), &lambda.ListFunctionsInput{})
			for pages.HasMorePages() {
				page, err := pages.NextPage(cmd.Context())
				if err != nil {
					return explain(cmd.Context(), err, *data)
				}
				all = append(all, page.Functions...)
			}
			if asJSON {
				e := json.NewEncoder(cmd.OutOrStdout())
				e.SetIndent("", "  ")
				return e.Encode(all)
			}
			if len(all) == 0 {
				fmt.Fprintln(cmd.ErrOrStderr(), "There are no functions yet. Create one with: aws lambda create-function (see the README)")
				return nil
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 2, ' ', 0)
			fmt.Fprintln(w, "NAME\tRUNTIME\tMEMORY\tTIMEOUT\tCODE\tMODIFIED")
			for _, f := range all {
				fmt.Fprintf(w, "%s\t%s\t%d MB\t%d s\t%s\t%s\n", aws.ToString(f.FunctionName), f.Runtime,
					aws.ToInt32(f.MemorySize), aws.ToInt32(f.Timeout), size(f.CodeSize), aws.ToString(f.LastModified))
			}
			return w.Flush()
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the configurations as JSON")
	return cmd
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
