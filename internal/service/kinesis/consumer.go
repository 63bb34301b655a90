package kinesis

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/kinesis"
)

const (
	// maxConsumers is how many consumers a stream has (developer guide, "Quotas and
	// limits").
	maxConsumers = 20
	// defaultConsumers is how many a page lists.
	defaultConsumers = 100
)

// consumer is a registered consumer of a stream. It is ACTIVE as soon as it is in the
// stream's record.
type consumer struct {
	Name    string
	Created time.Time // to the second, which its ARN ends with
}

func (s *Service) consumerARN(r *record, c *consumer) string {
	return s.arn(r.Name) + "/consumer/" + c.Name + ":" + strconv.FormatInt(c.Created.Unix(), 10)
}

// noConsumer is the error where a stream has no such consumer.
func (s *Service) noConsumer(what string) error {
	return api.NewResourceNotFoundException("Consumer %s under account %s not found.", what, s.opts.AccountID)
}

// findConsumer returns the consumer of a request, which names it by its ARN, or by its
// name and the stream's ARN.
func (s *Service) findConsumer(arn, streamARN, name *string) (record, consumer, error) {
	switch {
	case arn != nil:
		of, named, _ := strings.Cut(*arn, "/consumer/")
		named, _, _ = strings.Cut(named, ":")
		if streamARN != nil && *streamARN != of || name != nil && *name != named {
			return record{}, consumer{}, invalid("ConsumerARN, StreamARN and ConsumerName do not name the same consumer.")
		}
		streamARN, name = &of, &named
	case streamARN == nil || name == nil:
		return record{}, consumer{}, invalid("Either ConsumerARN, or both StreamARN and ConsumerName must be provided.")
	}
	r, err := s.find(nil, streamARN, nil)
	if err != nil {
		return r, consumer{}, err
	}
	i, ok := slices.BinarySearchFunc(r.Consumers, *name, func(c consumer, name string) int { return cmp.Compare(c.Name, name) })
	if !ok || arn != nil && s.consumerARN(&r, &r.Consumers[i]) != *arn {
		return r, consumer{}, s.noConsumer(aws.Value(cmp.Or(arn, name)))
	}
	return r, r.Consumers[i], nil
}

// RegisterStreamConsumer implements api.API.
func (s *Service) RegisterStreamConsumer(ctx context.Context, in *api.RegisterStreamConsumerInput) (*api.RegisterStreamConsumerOutput, error) {
	if len(in.Tags) > 0 {
		return nil, invalid("Tags of consumers are not supported by Lapwing.")
	}
	c := consumer{Name: *in.ConsumerName, Created: s.opts.Now().UTC().Truncate(time.Second)}
	arn := ""
	err := s.amend(ctx, nil, in.StreamARN, in.StreamId, func(r *record) error {
		i, ok := slices.BinarySearchFunc(r.Consumers, c, func(a, b consumer) int { return cmp.Compare(a.Name, b.Name) })
		switch {
		case ok:
			return api.NewResourceInUseException("Consumer %s of stream %s under account %s already exists.", c.Name, r.Name, s.opts.AccountID)
		case len(r.Consumers) >= maxConsumers:
			return api.NewLimitExceededException("Stream %s under account %s has %d registered consumers, which is the maximum for a stream.", r.Name, s.opts.AccountID, maxConsumers)
		}
		r.Consumers = slices.Insert(slices.Clone(r.Consumers), i, c)
		arn = s.consumerARN(r, &c)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &api.RegisterStreamConsumerOutput{Consumer: &api.Consumer{
		ConsumerName: &c.Name, ConsumerARN: &arn, ConsumerStatus: api.ConsumerStatusActive, ConsumerCreationTimestamp: &c.Created,
	}}, nil
}

// DeregisterStreamConsumer implements api.API. It ends the consumer's subscriptions.
func (s *Service) DeregisterStreamConsumer(ctx context.Context, in *api.DeregisterStreamConsumerInput) (*api.DeregisterStreamConsumerOutput, error) {
	r, c, err := s.findConsumer(in.ConsumerARN, in.StreamARN, in.ConsumerName)
	if err != nil {
		return nil, err
	}
	arn := s.consumerARN(&r, &c)
	err = s.amend(ctx, &r.Name, nil, &r.ID, func(r *record) error {
		n := len(r.Consumers)
		r.Consumers = slices.DeleteFunc(slices.Clone(r.Consumers), func(o consumer) bool { return s.consumerARN(r, &o) == arn })
		if len(r.Consumers) == n {
			return s.noConsumer(arn)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	s.subscriptions.end(s.noConsumer(arn), func(k subscriptionKey) bool { return k.consumer == arn })
	return &api.DeregisterStreamConsumerOutput{}, nil
}

// DescribeStreamConsumer implements api.API.
func (s *Service) DescribeStreamConsumer(_ context.Context, in *api.DescribeStreamConsumerInput) (*api.DescribeStreamConsumerOutput, error) {
	r, c, err := s.findConsumer(in.ConsumerARN, in.StreamARN, in.ConsumerName)
	if err != nil {
		return nil, err
	}
	return &api.DescribeStreamConsumerOutput{ConsumerDescription: &api.ConsumerDescription{
		ConsumerName: &c.Name, ConsumerARN: aws.Ptr(s.consumerARN(&r, &c)), ConsumerStatus: api.ConsumerStatusActive, ConsumerCreationTimestamp: &c.Created, StreamARN: aws.Ptr(s.arn(r.Name)),
	}}, nil
}

// consumersToken is where a list of consumers goes on.
type consumersToken struct {
	Stream string // id
	After  string // name
	Made   time.Time
}

// ListStreamConsumers implements api.API.
func (s *Service) ListStreamConsumers(_ context.Context, in *api.ListStreamConsumersInput) (*api.ListStreamConsumersOutput, error) {
	r, err := s.find(nil, in.StreamARN, in.StreamId)
	if err != nil {
		return nil, err
	}
	if in.StreamCreationTimestamp != nil && in.StreamCreationTimestamp.Unix() != r.Created.Unix() {
		return nil, api.NewResourceNotFoundException("Stream %s under account %s was not created at that time.", r.Name, s.opts.AccountID)
	}
	var t consumersToken
	if in.NextToken != nil {
		b, err := base64.RawURLEncoding.DecodeString(*in.NextToken)
		if err != nil || json.Unmarshal(b, &t) != nil || t.Stream != r.ID {
			return nil, invalid("Invalid NextToken.")
		}
		if s.opts.Now().Sub(t.Made) > tokenLife {
			return nil, api.NewExpiredNextTokenException("The NextToken has expired: it is good for %v.", tokenLife)
		}
	}
	out := &api.ListStreamConsumersOutput{Consumers: []*api.Consumer{}}
	limit := limitOf(in.MaxResults, defaultConsumers)
	for i := range r.Consumers {
		c := &r.Consumers[i]
		if c.Name <= t.After {
			continue
		}
		if n := len(out.Consumers); n == limit {
			b, err := json.Marshal(consumersToken{Stream: r.ID, After: *out.Consumers[n-1].ConsumerName, Made: s.opts.Now()})
			if err != nil {
				return nil, err
			}
			out.NextToken = aws.Ptr(base64.RawURLEncoding.EncodeToString(b))
			break
		}
		out.Consumers = append(out.Consumers, &api.Consumer{
			ConsumerName: &c.Name, ConsumerARN: aws.Ptr(s.consumerARN(&r, c)), ConsumerStatus: api.ConsumerStatusActive, ConsumerCreationTimestamp: &c.Created,
		})
	}
	return out, nil
}
