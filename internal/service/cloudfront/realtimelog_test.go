package cloudfront

import (
	"slices"
	"testing"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/cloudfront"
)

func realtimeLog(name string) *api.CreateRealtimeLogConfigInput {
	return &api.CreateRealtimeLogConfigInput{
		Name: &name, SamplingRate: aws.Ptr[int64](50), Fields: []string{"sc-status", "timestamp"},
		EndPoints: []*api.EndPoint{{StreamType: aws.Ptr("Kinesis"), KinesisStreamConfig: &api.KinesisStreamConfig{
			RoleARN: aws.Ptr("arn:aws:iam::" + testAccount + ":role/logs"), StreamARN: aws.Ptr("arn:aws:kinesis:us-east-1:" + testAccount + ":stream/s"),
		}}},
	}
}

func TestLifeOfARealtimeLog(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	made, err := f.CreateRealtimeLogConfig(ctx, realtimeLog("log"))
	if err != nil {
		t.Fatal(err)
	}
	arn := made.RealtimeLogConfig.ARN
	if *arn != "arn:aws:cloudfront::"+testAccount+":realtime-log-config/log" || !slices.Equal(made.RealtimeLogConfig.Fields, []string{"timestamp", "sc-status"}) {
		t.Errorf("made %+v, ARN %s", made.RealtimeLogConfig, *arn)
	}
	_, err = f.CreateRealtimeLogConfig(ctx, realtimeLog("log"))
	wantCode(t, err, "RealtimeLogConfigAlreadyExists")
	c := config("one")
	c.DefaultCacheBehavior.RealtimeLogConfigArn = arn
	d := f.create(c)
	if l, _ := f.records.RealtimeLogs.Get(*arn); l.Value.Sampling != 50 || l.Value.Stream != "arn:aws:kinesis:us-east-1:"+testAccount+":stream/s" {
		t.Errorf("edge locations have %+v", l.Value)
	}
	if shown, _ := f.records.Distributions.Get(*d.Distribution.Id); shown.Value.Behaviours[len(shown.Value.Behaviours)-1].RealtimeLog != *arn {
		t.Error("the behaviour at edge locations has no real-time log")
	}
	by, err := f.ListDistributionsByRealtimeLogConfig(ctx, &api.ListDistributionsByRealtimeLogConfigInput{RealtimeLogConfigName: aws.Ptr("log")})
	if err != nil || *by.DistributionList.Quantity != 1 {
		t.Errorf("distributions with it: %+v, %v", by, err)
	}
	_, err = f.DeleteRealtimeLogConfig(ctx, &api.DeleteRealtimeLogConfigInput{ARN: arn})
	wantCode(t, err, "RealtimeLogConfigInUse")
	change := realtimeLog("log")
	if _, err := f.UpdateRealtimeLogConfig(ctx, &api.UpdateRealtimeLogConfigInput{ARN: arn, EndPoints: change.EndPoints, Fields: []string{"c-ip"}, SamplingRate: aws.Ptr[int64](100)}); err != nil {
		t.Fatal(err)
	}
	f.close()
	f.open()
	got, err := f.GetRealtimeLogConfig(ctx, &api.GetRealtimeLogConfigInput{Name: aws.Ptr("log")})
	if err != nil || *got.RealtimeLogConfig.SamplingRate != 100 || !slices.Equal(got.RealtimeLogConfig.Fields, []string{"c-ip"}) {
		t.Errorf("got %+v, %v", got, err)
	}
	if l, _ := f.records.RealtimeLogs.Get(*arn); l.Value.Sampling != 100 {
		t.Errorf("edge locations have %+v", l.Value)
	}
	other := f.create(config("two"))
	without := clone(f, other.Distribution.DistributionConfig)
	without.CallerReference = d.Distribution.DistributionConfig.CallerReference
	if _, err := f.UpdateDistribution(ctx, &api.UpdateDistributionInput{Id: d.Distribution.Id, IfMatch: d.ETag, DistributionConfig: without}); err != nil {
		t.Fatal(err)
	}
	_, err = f.DeleteRealtimeLogConfig(ctx, &api.DeleteRealtimeLogConfigInput{Name: aws.Ptr("log")})
	wantCode(t, err, "")
	if f.records.RealtimeLogs.Len() != 0 {
		t.Error("edge locations still have it")
	}
	_, err = f.GetRealtimeLogConfig(ctx, &api.GetRealtimeLogConfigInput{ARN: arn})
	wantCode(t, err, "NoSuchRealtimeLogConfig")
}

func TestWhatIsNoRealtimeLogIsRefused(t *testing.T) {
	f := newFixture(t)
	for name, change := range map[string]func(*api.CreateRealtimeLogConfigInput){
		"no name":              func(in *api.CreateRealtimeLogConfigInput) { in.Name = aws.Ptr("a b") },
		"a rate of 0":          func(in *api.CreateRealtimeLogConfigInput) { in.SamplingRate = aws.Ptr[int64](0) },
		"a rate of 101":        func(in *api.CreateRealtimeLogConfigInput) { in.SamplingRate = aws.Ptr[int64](101) },
		"no fields":            func(in *api.CreateRealtimeLogConfigInput) { in.Fields = nil },
		"a field that is none": func(in *api.CreateRealtimeLogConfigInput) { in.Fields = []string{"date"} },
		"a field twice":        func(in *api.CreateRealtimeLogConfigInput) { in.Fields = []string{"c-ip", "c-ip"} },
		"media client data":    func(in *api.CreateRealtimeLogConfigInput) { in.Fields = []string{"cmcd-version"} },
		"no endpoint":          func(in *api.CreateRealtimeLogConfigInput) { in.EndPoints = nil },
		"two endpoints":        func(in *api.CreateRealtimeLogConfigInput) { in.EndPoints = append(in.EndPoints, in.EndPoints[0]) },
		"another type":         func(in *api.CreateRealtimeLogConfigInput) { in.EndPoints[0].StreamType = aws.Ptr("Firehose") },
		"no role":              func(in *api.CreateRealtimeLogConfigInput) { in.EndPoints[0].KinesisStreamConfig.RoleARN = nil },
		"another account's one": func(in *api.CreateRealtimeLogConfigInput) {
			in.EndPoints[0].KinesisStreamConfig.StreamARN = aws.Ptr("arn:aws:kinesis:us-east-1:999999999999:stream/s")
		},
	} {
		t.Run(name, func(t *testing.T) {
			in := realtimeLog("log")
			change(in)
			_, err := f.CreateRealtimeLogConfig(t.Context(), in)
			wantCode(t, err, "InvalidArgument")
		})
	}
	if f.realtimeLogs.collection.Len() != 0 {
		t.Error("something was made")
	}
}
