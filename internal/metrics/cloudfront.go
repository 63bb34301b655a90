package metrics

import (
	"sync"
	"sync/atomic"
	"time"
)

// cdnEvery is how often what was counted of distributions becomes metrics: a
// minute's metrics may be off by what came in so long at its end.
const cdnEvery = 5 * time.Second

// CloudFront counts the requests of distributions: metrics of the namespace
// AWS/CloudFront by distribution, with the Region Global that they have on AWS
// (CloudFront developer guide, "CloudFront metrics"). Counting takes a few
// atomic additions.
type CloudFront struct {
	to            Collector
	distributions sync.Map // id -> *cdnCounters
	stop          chan struct{}
	done          sync.WaitGroup
}

// cdnCounters are of one distribution, since they were last taken.
type cdnCounters struct {
	requests, downloaded, uploaded, client, server atomic.Int64

	execution, validation, limit atomic.Int64 // errors of Lambda@Edge functions
}

// CloudFrontNamespace is that of the metrics of distributions.
const CloudFrontNamespace = "AWS/CloudFront"

// Collector takes data whose sender does not wait for them to be durable: a Store,
// or what hands them on to one.
type Collector interface{ Collect(data []Datum) }

// NewCloudFront returns the metrics of distributions, which go to a Collector. Close
// ends it.
func NewCloudFront(to Collector) *CloudFront {
	c := &CloudFront{to: to, stop: make(chan struct{})}
	c.done.Go(c.run)
	return c
}

// Close hands over what was counted.
func (c *CloudFront) Close() {
	close(c.stop)
	c.done.Wait()
}

// Served counts a request: the status that the viewer saw, the bytes of answer
// and request, and how the request failed, as x-edge-detailed-result-type has it.
func (c *CloudFront) Served(distribution string, status int, downloaded, uploaded int64, detail string) {
	v, ok := c.distributions.Load(distribution)
	if !ok {
		v, _ = c.distributions.LoadOrStore(distribution, new(cdnCounters))
	}
	n := v.(*cdnCounters)
	n.requests.Add(1)
	n.downloaded.Add(downloaded)
	n.uploaded.Add(uploaded)
	switch status / 100 {
	case 4:
		n.client.Add(1)
	case 5:
		n.server.Add(1)
	}
	switch detail {
	case "LambdaExecutionError":
		n.execution.Add(1)
	case "LambdaValidationError":
		n.validation.Add(1)
	case "LambdaLimitExceeded":
		n.limit.Add(1)
	}
}

func (c *CloudFront) run() {
	t := time.NewTicker(cdnEvery)
	defer t.Stop()
	since := time.Now()
	for {
		select {
		case now := <-t.C:
			c.take(since)
			since = now
		case <-c.stop:
			c.take(since)
			return
		}
	}
}

// take makes metrics of what was counted since a time. Error rates have a value
// of 0 or 100 a request, so that their average is the rate in percent.
func (c *CloudFront) take(since time.Time) {
	c.distributions.Range(func(id, v any) bool {
		n := v.(*cdnCounters)
		requests := float64(n.requests.Swap(0))
		if requests == 0 {
			return true
		}
		var data []Datum
		add := func(name, unit string, sum, least, most float64) {
			m := NewMetric(CloudFrontNamespace, name, Dimension{"DistributionId", id.(string)}, Dimension{"Region", "Global"})
			data = append(data, Datum{Metric: m, Unit: unit, Time: since, Set: Statistics(requests, sum, least, most)})
		}
		rate := func(name string, errors float64) {
			least, most := 0.0, 0.0
			if errors > 0 {
				most = 100
			}
			if errors == requests {
				least = 100
			}
			add(name, "Percent", 100*errors, least, most)
		}
		add("Requests", "None", requests, 1, 1)
		down, up := float64(n.downloaded.Swap(0)), float64(n.uploaded.Swap(0))
		add("BytesDownloaded", "None", down, down/requests, down/requests)
		add("BytesUploaded", "None", up, up/requests, up/requests)
		client, server := float64(n.client.Swap(0)), float64(n.server.Swap(0))
		rate("4xxErrorRate", client)
		rate("5xxErrorRate", server)
		rate("TotalErrorRate", client+server)
		for name, counter := range map[string]*atomic.Int64{
			"LambdaExecutionError": &n.execution, "LambdaValidationError": &n.validation, "LambdaLimitExceededError": &n.limit,
		} {
			if k := counter.Swap(0); k > 0 {
				add(name, "None", float64(k), 0, 1)
			}
		}
		c.to.Collect(data)
		return true
	})
}
