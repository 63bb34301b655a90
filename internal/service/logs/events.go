package logs

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/logs"
	"lapwing.dev/lapwing/internal/logstore"
	"lapwing.dev/lapwing/internal/service/logs/pattern"
)

// Limits of PutLogEvents and of replies, all AWS's but scanLimit.
const (
	maxBatchBytes = 1 << 20
	maxBatchSpan  = 24 * time.Hour
	maxAge        = 14 * 24 * time.Hour
	maxAhead      = 2 * time.Hour

	maxReplyEvents = 10_000
	maxReplyBytes  = 1 << 20

	// scanLimit bounds what one FilterLogEvents looks at. Beyond it the reply
	// has a token to go on with, and perhaps no event, as AWS's may.
	scanLimit = 64 << 20
)

// PutLogEvents implements api.API.
func (s *Service) PutLogEvents(ctx context.Context, in *api.PutLogEventsInput) (*api.PutLogEventsOutput, error) {
	if err := checkBatch(in.LogEvents); err != nil {
		return nil, err
	}
	group, err := s.store.Group(*in.LogGroupName)
	if err != nil {
		return nil, storeError(err)
	}
	if _, err := s.store.Stream(group.Name, *in.LogStreamName); err != nil {
		return nil, storeError(err)
	}
	accepted, rejected := s.withinAge(in.LogEvents, group.RetentionDays)
	events := make([]logstore.Event, len(accepted))
	for i, e := range accepted {
		events[i] = logstore.Event{Time: time.UnixMilli(*e.Timestamp), Message: *e.Message}
	}
	if err := s.store.Put(ctx, group.Name, *in.LogStreamName, events); err != nil {
		return nil, storeError(err)
	}
	if s.opts.Put != nil {
		for _, e := range events {
			s.opts.Put(e.Message)
		}
	}
	out := &api.PutLogEventsOutput{NextSequenceToken: aws.Ptr(sequenceToken), RejectedLogEventsInfo: rejected}
	if in.Entity != nil {
		// Entities are of CloudWatch's, not of the events: say that it was not kept.
		out.RejectedEntityInfo = &api.RejectedEntityInfo{ErrorType: api.EntityRejectionErrorTypeUnsupportedLogGroupType}
	}
	return out, nil
}

// checkBatch applies the rules under which a batch is refused as a whole.
func checkBatch(events []*api.InputLogEvent) error {
	size := 0
	for i, e := range events {
		n := len(*e.Message) + logstore.EventOverhead
		if len(*e.Message) > logstore.MaxMessage {
			return invalid("Log event too large: %d bytes exceeds limit of %d", n, logstore.MaxMessage)
		}
		size += n
		if i > 0 && *e.Timestamp < *events[i-1].Timestamp {
			return invalid("Log events in a single PutLogEvents request must be in chronological order.")
		}
	}
	if size > maxBatchBytes {
		return invalid("Upload too large: %d bytes exceeds limit of %d", size, maxBatchBytes)
	}
	if *events[len(events)-1].Timestamp-*events[0].Timestamp > maxBatchSpan.Milliseconds() {
		return invalid("The batch of log events in a single PutLogEvents request cannot span more than 24 hours.")
	}
	return nil
}

// withinAge returns the events that are neither too old, expired nor too new,
// and which were not.
func (s *Service) withinAge(events []*api.InputLogEvent, days int) ([]*api.InputLogEvent, *api.RejectedLogEventsInfo) {
	now := s.opts.Clock()
	// The events are in chronological order.
	firstAt := func(t time.Time) int {
		i, _ := slices.BinarySearchFunc(events, t.UnixMilli(), func(e *api.InputLogEvent, at int64) int {
			if *e.Timestamp < at {
				return -1
			}
			return 1
		})
		return i
	}
	tooOld, expired := firstAt(now.Add(-maxAge)), 0
	if days > 0 {
		expired = firstAt(now.AddDate(0, 0, -days))
	}
	tooNew := firstAt(now.Add(maxAhead).Add(time.Millisecond))
	info := new(api.RejectedLogEventsInfo)
	if tooOld > 0 {
		info.TooOldLogEventEndIndex = aws.Ptr(int32(tooOld))
	}
	if expired > 0 {
		info.ExpiredLogEventEndIndex = aws.Ptr(int32(expired))
	}
	if tooNew < len(events) {
		info.TooNewLogEventStartIndex = aws.Ptr(int32(tooNew))
	}
	from := min(max(tooOld, expired), tooNew)
	if from == 0 && tooNew == len(events) {
		return events, nil
	}
	return events[from:tooNew], info
}

// reply collects events within the limits of a reply.
type reply struct {
	records []logstore.Record
	bytes   int
	limit   int
}

func newReply(limit *int32) *reply {
	r := &reply{limit: maxReplyEvents}
	if limit != nil {
		r.limit = int(*limit)
	}
	return r
}

// add takes a record, or reports that it has no room.
func (r *reply) add(rec logstore.Record) bool {
	size := len(rec.Message) + logstore.EventOverhead
	if len(r.records) == r.limit || len(r.records) > 0 && r.bytes+size > maxReplyBytes {
		return false
	}
	r.records = append(r.records, rec)
	r.bytes += size
	return true
}

// startOf and endOf turn optional bounds into those of ReadOptions. inclusive
// tells whether an event at the end is wanted.
func startOf(t *int64) time.Time {
	if t == nil || *t == 0 {
		return time.Time{}
	}
	return time.UnixMilli(*t)
}

func endOf(t *int64, inclusive bool) time.Time {
	if t == nil {
		return time.Time{}
	}
	end := time.UnixMilli(*t)
	if inclusive {
		end = end.Add(time.Millisecond)
	}
	return end
}

// GetLogEvents implements api.API. Its tokens name a position, "f/…" to read
// on from there and "b/…" to read what is before it. A token with which there
// is nothing (yet) is returned again.
func (s *Service) GetLogEvents(ctx context.Context, in *api.GetLogEventsInput) (*api.GetLogEventsOutput, error) {
	group, err := oneGroup(ctx, in.LogGroupName, in.LogGroupIdentifier)
	if err != nil {
		return nil, err
	}
	if _, err := s.store.Stream(group, *in.LogStreamName); err != nil {
		return nil, storeError(err)
	}
	opts := logstore.ReadOptions{
		Streams:  func(name string) bool { return name == *in.LogStreamName },
		Start:    startOf(in.StartTime),
		End:      endOf(in.EndTime, false),
		Backward: !aws.Value(in.StartFromHead),
	}
	if in.NextToken != nil {
		if opts.After, opts.Backward, err = parsePositionToken(*in.NextToken); err != nil {
			return nil, err
		}
	}
	r := newReply(in.Limit)
	for rec, err := range s.store.Read(ctx, group, opts) {
		if err != nil {
			return nil, storeError(err)
		}
		if !r.add(rec) {
			break
		}
	}
	if opts.Backward {
		slices.Reverse(r.records)
	}
	first, last := opts.After, opts.After
	if n := len(r.records); n > 0 {
		first, last = &r.records[0].Position, &r.records[n-1].Position
	} else if first == nil {
		// Nothing yet: what comes is after the begin.
		first = &logstore.Position{Time: aws.Value(in.StartTime)}
		last = first
	}
	out := &api.GetLogEventsOutput{
		Events:            []*api.OutputLogEvent{},
		NextForwardToken:  aws.Ptr("f/" + last.String() + "/s"),
		NextBackwardToken: aws.Ptr("b/" + first.String() + "/s"),
	}
	for i := range r.records {
		rec := &r.records[i]
		out.Events = append(out.Events, &api.OutputLogEvent{
			Timestamp: millis(rec.Time), Message: aws.Ptr(rec.Message), IngestionTime: millis(rec.Ingested),
		})
	}
	return out, nil
}

func parsePositionToken(token string) (after *logstore.Position, backward bool, err error) {
	direction, rest, _ := strings.Cut(token, "/")
	p, err := logstore.ParsePosition(strings.TrimSuffix(rest, "/s"))
	if err != nil || direction != "f" && direction != "b" {
		return nil, false, invalid("The specified nextToken is invalid.")
	}
	return &p, direction == "b", nil
}

// filterPage is the token of FilterLogEvents.
type filterPage struct {
	After string `json:"after"`
}

// FilterLogEvents implements api.API.
func (s *Service) FilterLogEvents(ctx context.Context, in *api.FilterLogEventsInput) (*api.FilterLogEventsOutput, error) {
	group, err := oneGroup(ctx, in.LogGroupName, in.LogGroupIdentifier)
	if err != nil {
		return nil, err
	}
	opts, err := s.filterOptions(group, in)
	if err != nil {
		return nil, err
	}
	r := newReply(in.Limit)
	out := &api.FilterLogEventsOutput{Events: []*api.FilteredLogEvent{}, SearchedLogStreams: []*api.SearchedLogStream{}}
	for rec, err := range s.store.Read(ctx, group, opts) {
		if errors.Is(err, logstore.ErrScanLimit) {
			out.NextToken = encodeToken(filterPage{After: rec.Position.String()})
			break
		}
		if err != nil {
			return nil, storeError(err)
		}
		if !r.add(rec) {
			out.NextToken = encodeToken(filterPage{After: r.records[len(r.records)-1].Position.String()})
			break
		}
	}
	for i := range r.records {
		rec := &r.records[i]
		out.Events = append(out.Events, &api.FilteredLogEvent{
			LogStreamName: aws.Ptr(rec.Stream), Timestamp: millis(rec.Time), Message: aws.Ptr(rec.Message),
			IngestionTime: millis(rec.Ingested), EventId: aws.Ptr(rec.Position.String()),
		})
	}
	return out, nil
}

// filterOptions turns a request into what is to be read.
func (s *Service) filterOptions(group string, in *api.FilterLogEventsInput) (logstore.ReadOptions, error) {
	opts := logstore.ReadOptions{
		Start:     startOf(in.StartTime),
		End:       endOf(in.EndTime, true),
		Backward:  in.StartFromHead != nil && !*in.StartFromHead,
		ScanLimit: scanLimit,
	}
	if in.StartTime != nil && in.EndTime != nil && *in.StartTime > *in.EndTime {
		return opts, invalid("The startTime must be before the endTime")
	}
	if _, err := s.store.Group(group); err != nil {
		return opts, storeError(err)
	}
	var err error
	if opts.Streams, err = streamFilter(in.LogStreamNames, in.LogStreamNamePrefix); err != nil {
		return opts, err
	}
	for _, name := range in.LogStreamNames {
		if _, err := s.store.Stream(group, name); err != nil {
			return opts, storeError(err)
		}
	}
	if opts.Match, err = messageFilter(in.FilterPattern); err != nil {
		return opts, err
	}
	if in.NextToken != nil {
		var page filterPage
		if err := decodeToken(in.NextToken, &page); err != nil {
			return opts, err
		}
		p, err := logstore.ParsePosition(page.After)
		if err != nil {
			return opts, invalid("The specified nextToken is invalid.")
		}
		opts.After = &p
	}
	return opts, nil
}

// streamFilter returns which streams are asked for; nil means all.
func streamFilter(names []string, prefix *string) (func(string) bool, error) {
	switch {
	case len(names) > 0 && prefix != nil:
		return nil, invalid("logStreamNamePrefix and logStreamNames are mutually exclusive parameters.")
	case len(names) > 0:
		return func(name string) bool { return slices.Contains(names, name) }, nil
	case prefix != nil:
		return func(name string) bool { return strings.HasPrefix(name, *prefix) }, nil
	}
	return nil, nil
}

// messageFilter returns which messages are asked for; nil means all.
func messageFilter(text *string) (func(string) bool, error) {
	if text == nil {
		return nil, nil
	}
	p, err := pattern.Parse(*text)
	if err != nil {
		return nil, invalid("%s", err.Error())
	}
	if p.All() {
		return nil, nil
	}
	return p.Match, nil
}
