// Command function sleeps as told and answers with an id of its environment.
package main

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
)

var id = rand.Uint64()

func main() {
	lambda.Start(func(e struct{ Sleep int }) (string, error) {
		fmt.Println("sleeping for", e.Sleep)
		time.Sleep(time.Duration(e.Sleep) * time.Millisecond)
		return fmt.Sprint(id), nil
	})
}
