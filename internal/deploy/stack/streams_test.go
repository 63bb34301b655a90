package stack

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/cloudfront"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
)

func TestPropertiesOfAStreamBecomeTheAPIs(t *testing.T) {
	for name, tt := range map[string]struct {
		text   string
		shards int32 // 0: none is named
		hours  int32
	}{
		"nothing":     {"{}", 1, 24},
		"provisioned": {"{ShardCount: 3, RetentionPeriodHours: 48}", 3, 48},
		"as text":     {`{ShardCount: "2", StreamModeDetails: {StreamMode: PROVISIONED}}`, 2, 24},
		"on demand":   {"{StreamModeDetails: {StreamMode: ON_DEMAND}}", 0, 24},
	} {
		t.Run(name, func(t *testing.T) {
			in, hours, err := streamInput(&call{id: "s", props: fromYAML(t, tt.text)})
			if err != nil || hours != tt.hours || *in.StreamName != "s" {
				t.Fatalf("%+v, %d hours, %v", in, hours, err)
			}
			if (in.ShardCount == nil) != (tt.shards == 0) || in.ShardCount != nil && *in.ShardCount != tt.shards {
				t.Errorf("shards %v, want %d", in.ShardCount, tt.shards)
			}
			if (in.StreamModeDetails != nil && in.StreamModeDetails.StreamMode == types.StreamModeOnDemand) != (tt.shards == 0) {
				t.Errorf("mode %+v", in.StreamModeDetails)
			}
		})
	}
	if _, _, err := streamInput(&call{props: fromYAML(t, "{ShardCount: many}")}); err == nil {
		t.Error("many shards are taken for a number")
	}
}

func TestARealtimeLogOfATemplateBecomesTheAPIs(t *testing.T) {
	in := &cloudfront.CreateRealtimeLogConfigInput{}
	err := bindRealtimeLog(&call{props: fromYAML(t, `
Name: log
SamplingRate: 100
Fields: [timestamp, c-ip]
EndPoints:
  - StreamType: Kinesis
    KinesisStreamConfig: {RoleArn: role, StreamArn: stream}
`)}, in)
	if err != nil || *in.SamplingRate != 100 || len(in.Fields) != 2 || *in.EndPoints[0].KinesisStreamConfig.RoleARN != "role" || *in.EndPoints[0].KinesisStreamConfig.StreamARN != "stream" {
		t.Errorf("%+v, %v", in, err)
	}
}
