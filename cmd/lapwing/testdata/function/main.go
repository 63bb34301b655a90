// Command function is what the scripts deploy. It prints its event and answers
// with it; an event with "fail" fails, one with "slow" takes its time, and one
// with "embed" has a metric in the log.
package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
)

// Broken is the type of the error as its caller sees it.
type Broken struct{}

func (Broken) Error() string { return "as told" }

func handle(event json.RawMessage) (any, error) {
	told := func(what string) bool { return strings.Contains(string(event), `"`+what+`"`) }
	fmt.Printf("event: %s\n", event)
	switch {
	case told("fail"):
		return nil, Broken{}
	case told("slow"):
		time.Sleep(3 * time.Second)
		return "slow", nil
	case told("embed"):
		fmt.Printf(`{"_aws":{"Timestamp":%d,"CloudWatchMetrics":[{"Namespace":"app","Metrics":[{"Name":"latency"}]}]},"latency":7}`+"\n", time.Now().UnixMilli())
	}
	return event, nil
}

func main() { lambda.Start(handle) }
