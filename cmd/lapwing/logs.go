package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"
	"github.com/spf13/cobra"
)

// followEvery is how often `logs -f` asks for more.
const followEvery = 500 * time.Millisecond

func logsCommand(data *string) *cobra.Command {
	var follow, asTimes bool
	var since time.Duration
	var pattern string
	cmd := &cobra.Command{
		Use:   "logs FUNCTION",
		Short: "Print a function's log, and follow it with -f",
		Long: `Print what a function logged, oldest first. A name that starts with / is the
name of a log group.`,
		Example: `  lapwing logs hello -f
  lapwing logs hello --since 1h --filter ERROR`,
		Args:              exactArgs("FUNCTION"),
		ValidArgsFunction: completeFunction(data),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := client(*data)
			if err != nil {
				return err
			}
			group := args[0]
			if !strings.HasPrefix(group, "/") {
				group = "/aws/lambda/" + group
			}
			l := &logReader{client: cloudwatchlogs.NewFromConfig(cfg), group: group, pattern: pattern, times: asTimes, out: cmd.OutOrStdout(), progress: cmd.ErrOrStderr()}
			err = l.run(cmd.Context(), time.Now().Add(-since), follow)
			if cmd.Context().Err() != nil && follow {
				return nil // Ctrl-C is how one stops following
			}
			return explain(err, *data, "A function's log begins with its first invocation; `lapwing functions` lists the functions.")
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "wait for more and print it as it comes")
	cmd.Flags().BoolVarP(&asTimes, "timestamps", "t", false, "print the time of each line")
	cmd.Flags().DurationVar(&since, "since", 24*time.Hour, "how far back to begin")
	cmd.Flags().StringVar(&pattern, "filter", "", "CloudWatch Logs filter pattern")
	return cmd
}

// logReader prints the events of a log group.
type logReader struct {
	client  *cloudwatchlogs.Client
	group   string
	pattern string
	times   bool
	out     io.Writer
	// progress is where it says that it waits.
	progress io.Writer

	// seen holds the ids of events printed at the newest times: events of the
	// same time, or late ones, may still come.
	seen map[string]int64
}

func (l *logReader) run(ctx context.Context, from time.Time, follow bool) error {
	l.seen = map[string]int64{}
	start := from.UnixMilli()
	waiting := false
	for {
		newest, err := l.print(ctx, start)
		var missing *types.ResourceNotFoundException
		if follow && errors.As(err, &missing) {
			err = nil // it appears with the first invocation
			if !waiting {
				fmt.Fprintf(l.progress, "There is no log group %s yet; waiting for it.\n", l.group)
				waiting = true
			}
		}
		if err != nil || !follow {
			return err
		}
		// Events may be stored a little out of order: look back a moment.
		start = max(start, newest-5000)
		for id, t := range l.seen {
			if t < start {
				delete(l.seen, id)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(followEvery):
		}
	}
}

// print prints the events from start (in ms) that were not printed yet and
// returns the time of the newest.
func (l *logReader) print(ctx context.Context, start int64) (newest int64, err error) {
	in := &cloudwatchlogs.FilterLogEventsInput{LogGroupName: &l.group, StartTime: &start}
	if l.pattern != "" {
		in.FilterPattern = &l.pattern
	}
	pages := cloudwatchlogs.NewFilterLogEventsPaginator(l.client, in)
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return newest, err
		}
		for _, e := range page.Events {
			t := aws.ToInt64(e.Timestamp)
			newest = max(newest, t)
			if _, old := l.seen[aws.ToString(e.EventId)]; old {
				continue
			}
			l.seen[aws.ToString(e.EventId)] = t
			if l.times {
				fmt.Fprint(l.out, time.UnixMilli(t).UTC().Format("2006-01-02T15:04:05.000Z "))
			}
			fmt.Fprintln(l.out, strings.TrimRight(aws.ToString(e.Message), "\n"))
		}
	}
	return newest, nil
}
