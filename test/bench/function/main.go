// Command function echoes its event, after the time that the file hold beside
// it names, if there is one.
package main

import (
	"encoding/json"
	"os"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
)

func main() {
	var hold time.Duration
	if b, err := os.ReadFile("hold"); err == nil {
		if hold, err = time.ParseDuration(string(b)); err != nil {
			panic(err)
		}
	}
	lambda.Start(func(event json.RawMessage) (json.RawMessage, error) {
		time.Sleep(hold)
		return event, nil
	})
}
