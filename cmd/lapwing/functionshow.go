package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	sdk "github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"github.com/spf13/cobra"

	"lapwing.dev/lapwing/internal/service/lambda"
)

func functionsShowCommand(data *string) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show FUNCTION",
		Short: "Show the versions of a function and their snapshots",
		Long: `Show each version of a function: its state, and whether new environments of it
start from a snapshot, of what size and age, and how many did; or why there is
none. A snapshot is made in the background after a version's first start, or, with
SnapStart, when it is published. The tag lapwing:snapshots=off on a function
switches its snapshots off.`,
		Example: `  lapwing functions show hello
  lapwing functions show hello --json`,
		Args:              exactArgs("FUNCTION"),
		ValidArgsFunction: completeFunction(data),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := client(*data)
			if err != nil {
				return err
			}
			versions, err := showFunction(cmd.Context(), cfg, args[0])
			if err != nil {
				return explain(err, *data, "`lapwing functions` lists the functions.")
			}
			if asJSON {
				return printJSON(cmd, versions)
			}
			return printVersions(cmd.OutOrStdout(), versions, time.Now())
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON: a list of versions")
	return cmd
}

// shownVersion is what `functions show` tells of a version.
type shownVersion struct {
	Version      string `json:"version"`
	State        string `json:"state"`
	StateReason  string `json:"stateReason,omitempty"`
	Runtime      string `json:"runtime,omitempty"` // empty for a container image
	PackageType  string `json:"packageType"`
	MemoryMB     int32  `json:"memoryMB"`
	LastModified string `json:"lastModified"`
	SnapStart    bool   `json:"snapStart"`
	lambda.Details
}

// showFunction asks for all versions of a function, $LATEST first.
func showFunction(ctx context.Context, cfg aws.Config, name string) ([]shownVersion, error) {
	c := sdk.NewFromConfig(cfg)
	all := []shownVersion{}
	pages := sdk.NewListVersionsByFunctionPaginator(c, &sdk.ListVersionsByFunctionInput{FunctionName: &name})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, err
		}
		for _, listed := range page.Versions {
			v, err := showVersion(ctx, c, name, listed.Version)
			if err != nil {
				return nil, err
			}
			all = append(all, v)
		}
	}
	return all, nil
}

func showVersion(ctx context.Context, c *sdk.Client, name string, number *string) (shownVersion, error) {
	f, err := c.GetFunctionConfiguration(ctx, &sdk.GetFunctionConfigurationInput{FunctionName: &name, Qualifier: number},
		sdk.WithAPIOptions(smithyhttp.AddHeaderValue(lambda.DetailsHeader, "1")))
	if err != nil {
		return shownVersion{}, err
	}
	v := shownVersion{
		Version: aws.ToString(f.Version), State: string(f.State), StateReason: aws.ToString(f.StateReason), Runtime: string(f.Runtime), PackageType: string(f.PackageType),
		MemoryMB: aws.ToInt32(f.MemorySize), LastModified: aws.ToString(f.LastModified),
		SnapStart: f.SnapStart != nil && f.SnapStart.ApplyOn == types.SnapStartApplyOnPublishedVersions,
	}
	raw, ok := awsmiddleware.GetRawResponse(f.ResultMetadata).(*smithyhttp.Response)
	if !ok || raw.Header.Get(lambda.DetailsHeader) == "" {
		return v, fmt.Errorf("the server tells nothing of snapshots: it is another version of Lapwing than this program, %s", version)
	}
	if err := json.Unmarshal([]byte(raw.Header.Get(lambda.DetailsHeader)), &v.Details); err != nil {
		return v, fmt.Errorf("%s: %w", lambda.DetailsHeader, err)
	}
	return v, nil
}

func printVersions(out io.Writer, versions []shownVersion, now time.Time) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "VERSION\tSTATE\tRUNTIME\tMEMORY\tSNAPSTART\tSNAPSHOT")
	var more []string
	for _, v := range versions {
		snapStart := "off"
		if v.SnapStart {
			snapStart = "on"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%d MB\t%s\t%s\n", v.Version, v.State, cmp.Or(v.Runtime, "(image)"), v.MemoryMB, snapStart, describeSnapshot(v.Snapshot, now))
		if v.State == string(types.StateFailed) {
			more = append(more, strings.TrimSpace(fmt.Sprintf("Version %s failed: %s %s", v.Version, v.StateReason, strings.Join(strings.Fields(v.Failure), " "))))
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, line := range more {
		if _, err := fmt.Fprintln(out, line); err != nil {
			return err
		}
	}
	return nil
}

// describeSnapshot tells about a snapshot in a few words.
func describeSnapshot(s lambda.SnapshotDetails, now time.Time) string {
	switch {
	case s.Ready && s.Created != nil:
		times := "times"
		if s.Uses == 1 {
			times = "time"
		}
		return fmt.Sprintf("%s, %s old, used %d %s", size(s.Size), age(now.Sub(*s.Created)), s.Uses, times)
	case s.Reason != "":
		return "none: " + s.Reason + meanwhile(s)
	}
	return "none yet" + meanwhile(s)
}

// meanwhile tells how environments start for which there is no snapshot.
func meanwhile(s lambda.SnapshotDetails) string {
	if s.Runtime {
		return " (starts from one of its runtime alone)"
	}
	return ""
}

// age prints a time that has passed in its largest unit.
func age(d time.Duration) string {
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%d days", d/(24*time.Hour))
	case d >= time.Hour:
		return fmt.Sprintf("%dh", d/time.Hour)
	case d >= time.Minute:
		return fmt.Sprintf("%dm", d/time.Minute)
	}
	return fmt.Sprintf("%ds", max(0, d)/time.Second)
}
