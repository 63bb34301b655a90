// Command nonce says in its log which event it runs, takes its time, and answers
// with the event's nonce and an id of its environment.
package main

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
)

var environment = fmt.Sprintf("%016x", rand.Uint64())

type event struct {
	Nonce string
	Sleep int // ms
}

type answer struct{ Nonce, Environment string }

func main() {
	lambda.Start(func(e event) (answer, error) {
		fmt.Println("ran", e.Nonce)
		time.Sleep(time.Duration(e.Sleep) * time.Millisecond)
		return answer{e.Nonce, environment}, nil
	})
}
