package stack

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudfront"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
)

// streamPatience is how long a data stream may take to be there, or gone.
const streamPatience = 5 * time.Minute

// dayHours is the retention of a data stream that names none.
const dayHours = 24

// streamKinds are data streams, and what writes into them.
var streamKinds = map[string]kind{
	"AWS::Kinesis::Stream": {
		properties: "Name! ShardCount RetentionPeriodHours StreamModeDetails Tags", attributes: []string{"Arn"}, name: "Name", limit: 128,
		check: func(c *call) error {
			_, _, err := streamInput(c)
			return err
		},
		create: func(ctx context.Context, c *call) error {
			in, hours, err := streamInput(c)
			if err != nil {
				return err
			}
			if _, err := c.Kinesis.CreateStream(ctx, in); err != nil {
				return err
			}
			c.made = true
			if err := c.streamActive(ctx); err != nil || hours == dayHours {
				return err
			}
			_, err = c.Kinesis.IncreaseStreamRetentionPeriod(ctx, &kinesis.IncreaseStreamRetentionPeriodInput{StreamName: &c.id, RetentionPeriodHours: &hours})
			return err
		},
		update: updateStream,
		remove: func(ctx context.Context, c *call) error {
			if _, err := c.Kinesis.DeleteStream(ctx, &kinesis.DeleteStreamInput{StreamName: &c.id}); err != nil {
				return err
			}
			w := kinesis.NewStreamNotExistsWaiter(c.Kinesis, func(o *kinesis.StreamNotExistsWaiterOptions) {
				o.MinDelay, o.MaxDelay = 50*time.Millisecond, time.Second
			})
			return w.Wait(ctx, &kinesis.DescribeStreamInput{StreamName: &c.id}, streamPatience)
		},
		read: func(_ context.Context, c *call) (map[string]string, error) {
			return map[string]string{"": c.id, "Arn": c.arn("kinesis", "stream/"+c.id)}, nil
		},
	},
	"AWS::CloudFront::RealtimeLogConfig": {
		properties: "Name! EndPoints* Fields* SamplingRate*", attributes: []string{"Arn"}, name: "Name", limit: 64,
		check: func(c *call) error { return bindRealtimeLog(c, &cloudfront.CreateRealtimeLogConfigInput{}) },
		create: func(ctx context.Context, c *call) error {
			in := &cloudfront.CreateRealtimeLogConfigInput{}
			if err := bindRealtimeLog(c, in); err != nil {
				return err
			}
			in.Name = &c.id
			_, err := c.CloudFront.CreateRealtimeLogConfig(ctx, in)
			return err
		},
		update: func(ctx context.Context, c *call) error {
			in := &cloudfront.UpdateRealtimeLogConfigInput{}
			if err := bindRealtimeLog(c, in); err != nil {
				return err
			}
			in.Name = &c.id
			_, err := c.CloudFront.UpdateRealtimeLogConfig(ctx, in)
			return err
		},
		remove: func(ctx context.Context, c *call) error {
			_, err := c.CloudFront.DeleteRealtimeLogConfig(ctx, &cloudfront.DeleteRealtimeLogConfigInput{Name: &c.id})
			return err
		},
		read: func(_ context.Context, c *call) (map[string]string, error) {
			arn := "arn:aws:cloudfront::" + c.Account + ":realtime-log-config/" + c.id
			return map[string]string{"": arn, "Arn": arn}, nil
		},
	},
}

// streamInput is how a data stream is made, and its retention in hours.
func streamInput(c *call) (*kinesis.CreateStreamInput, int32, error) {
	in := &kinesis.CreateStreamInput{StreamName: &c.id}
	if err := bind(c.only("ShardCount", "StreamModeDetails"), in); err != nil {
		return nil, 0, err
	}
	if in.ShardCount == nil && (in.StreamModeDetails == nil || in.StreamModeDetails.StreamMode == types.StreamModeProvisioned) {
		in.ShardCount = aws.Int32(1)
	}
	var retention struct{ RetentionPeriodHours *int32 }
	if err := bind(c.only("RetentionPeriodHours"), &retention); err != nil {
		return nil, 0, err
	}
	hours := int32(dayHours)
	if retention.RetentionPeriodHours != nil {
		hours = *retention.RetentionPeriodHours
	}
	var err error
	in.Tags, err = tagMap(c.props["Tags"])
	return in, hours, err
}

// updateStream makes a data stream what it is to be, one setting after the other.
func updateStream(ctx context.Context, c *call) error {
	want, hours, err := streamInput(c)
	if err != nil {
		return err
	}
	if err := c.streamActive(ctx); err != nil {
		return err
	}
	out, err := c.Kinesis.DescribeStreamSummary(ctx, &kinesis.DescribeStreamSummaryInput{StreamName: &c.id})
	if err != nil {
		return err
	}
	is := out.StreamDescriptionSummary
	mode := types.StreamModeProvisioned
	if want.StreamModeDetails != nil {
		mode = want.StreamModeDetails.StreamMode
	}
	if is.StreamModeDetails.StreamMode != mode {
		if _, err := c.Kinesis.UpdateStreamMode(ctx, &kinesis.UpdateStreamModeInput{StreamARN: is.StreamARN, StreamModeDetails: &types.StreamModeDetails{StreamMode: mode}}); err != nil {
			return err
		}
	}
	if mode == types.StreamModeProvisioned && *is.OpenShardCount != *want.ShardCount {
		if _, err := c.Kinesis.UpdateShardCount(ctx, &kinesis.UpdateShardCountInput{StreamName: &c.id, TargetShardCount: want.ShardCount, ScalingType: types.ScalingTypeUniformScaling}); err != nil {
			return err
		}
	}
	switch now := *is.RetentionPeriodHours; {
	case hours > now:
		_, err = c.Kinesis.IncreaseStreamRetentionPeriod(ctx, &kinesis.IncreaseStreamRetentionPeriodInput{StreamName: &c.id, RetentionPeriodHours: &hours})
	case hours < now:
		_, err = c.Kinesis.DecreaseStreamRetentionPeriod(ctx, &kinesis.DecreaseStreamRetentionPeriodInput{StreamName: &c.id, RetentionPeriodHours: &hours})
	}
	if err != nil || !c.has("Tags") {
		return err
	}
	return c.tagStream(ctx, want.Tags)
}

func (c *call) tagStream(ctx context.Context, wanted map[string]string) error {
	old, err := tagMap(c.old["Tags"])
	if err != nil {
		return err
	}
	maps.DeleteFunc(old, func(key, _ string) bool { _, stays := wanted[key]; return stays })
	if len(old) > 0 {
		if _, err := c.Kinesis.RemoveTagsFromStream(ctx, &kinesis.RemoveTagsFromStreamInput{StreamName: &c.id, TagKeys: slices.Sorted(maps.Keys(old))}); err != nil {
			return err
		}
	}
	if len(wanted) == 0 {
		return nil
	}
	_, err = c.Kinesis.AddTagsToStream(ctx, &kinesis.AddTagsToStreamInput{StreamName: &c.id, Tags: wanted})
	return err
}

// streamActive waits until the data stream can be used.
func (c *call) streamActive(ctx context.Context) error {
	w := kinesis.NewStreamExistsWaiter(c.Kinesis, func(o *kinesis.StreamExistsWaiterOptions) {
		o.MinDelay, o.MaxDelay = 50*time.Millisecond, time.Second
	})
	return w.Wait(ctx, &kinesis.DescribeStreamInput{StreamName: &c.id}, streamPatience)
}

// bindRealtimeLog puts a real-time log configuration into the input of a call. In
// templates ARNs have another spelling than in the API.
func bindRealtimeLog(c *call, in any) error {
	return bind(streamForm(c.only("EndPoints", "Fields", "SamplingRate")), in)
}

func streamForm(v any) any {
	switch v := v.(type) {
	case []any:
		list := make([]any, len(v))
		for i, one := range v {
			list[i] = streamForm(one)
		}
		return list
	case map[string]any:
		m := make(map[string]any, len(v))
		for name, one := range v {
			switch name {
			case "RoleArn":
				name = "RoleARN"
			case "StreamArn":
				name = "StreamARN"
			}
			m[name] = streamForm(one)
		}
		return m
	}
	return v
}
