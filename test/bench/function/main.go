// Command function echoes its event.
package main

import (
	"encoding/json"

	"github.com/aws/aws-lambda-go/lambda"
)

func main() {
	lambda.Start(func(event json.RawMessage) (json.RawMessage, error) { return event, nil })
}
