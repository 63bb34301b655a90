// Package gate lets a function wait for its test.
package gate

import (
	"fmt"
	"net/http"
	"time"
)

// Wait says in the log that it waits, and returns when there is an object at url.
func Wait(url string) {
	fmt.Println("waiting")
	for c := (&http.Client{Timeout: time.Minute}); ; time.Sleep(500 * time.Millisecond) {
		resp, err := c.Get(url)
		if err != nil {
			continue
		}
		resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			return
		}
	}
}
