package events

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
)

// Why an event leaves the queue, as invocation records say it (Lambda
// developer guide, Capturing records of asynchronous invocations).
const (
	conditionSuccess   = "Success"
	conditionRetries   = "RetriesExhausted"
	conditionAge       = "EventAgeExceeded"
	conditionReserved  = "ZeroReservedConcurrency"
	conditionRecursion = "RecursiveInvocation"
)

// maxErrorMessage is how much of an error message a dead letter has (Lambda
// developer guide, Dead-letter queues).
const maxErrorMessage = 1024

// record is AWS's invocation record.
type record struct {
	Version         string           `json:"version"`
	Timestamp       string           `json:"timestamp"`
	RequestContext  requestContext   `json:"requestContext"`
	RequestPayload  json.RawMessage  `json:"requestPayload"`
	ResponseContext *responseContext `json:"responseContext,omitempty"`
	ResponsePayload json.RawMessage  `json:"responsePayload,omitempty"`
}

type requestContext struct {
	RequestID              string `json:"requestId"`
	FunctionARN            string `json:"functionArn"`
	Condition              string `json:"condition"`
	ApproximateInvokeCount int    `json:"approximateInvokeCount"`
}

type responseContext struct {
	StatusCode      int    `json:"statusCode"`
	ExecutedVersion string `json:"executedVersion"`
	FunctionError   string `json:"functionError,omitempty"`
}

func (a *attempt) record(condition string) ([]byte, error) {
	r := record{
		Version: "1.0", Timestamp: time.Now().UTC().Format("2006-01-02T15:04:05.000Z"),
		RequestContext: requestContext{
			RequestID: a.RequestID, FunctionARN: a.plan.RecordARN, Condition: condition, ApproximateInvokeCount: a.Attempts,
		},
		RequestPayload: a.payload,
	}
	if a.result != nil {
		r.ResponseContext = &responseContext{http.StatusOK, a.plan.Version.Version, a.result.FunctionError}
		r.ResponsePayload = asJSON(a.response)
	}
	return json.Marshal(r)
}

// asJSON returns a response as it is, or as a string where it is no JSON.
func asJSON(b []byte) json.RawMessage {
	switch {
	case len(b) == 0:
		return json.RawMessage("null")
	case json.Valid(b):
		return b
	}
	s, err := json.Marshal(strings.ToValidUTF8(string(b), "�"))
	if err != nil {
		return json.RawMessage("null") // of a string, it does not fail
	}
	return s
}

// deliver hands the record of an invocation to a destination. It is false where
// the queue was closed before that was durable.
func (q *Queue) deliver(a *attempt, arn, condition string) bool {
	payload, err := a.record(condition)
	if err == nil {
		var done bool
		if done, err = q.forward(a, arn, &Event{Payload: payload}); err == nil {
			return done
		}
	}
	q.observer.DestinationFailed(a.Target)
	q.log.Warn("invocation record cannot be delivered", "function", a.Target.String(), "requestId", a.RequestID, "destination", arn, "error", err)
	return true
}

// bury hands an event to its dead-letter target. On AWS that is a queue or a
// topic, and the error is in three attributes of the message; a function finds
// them in its client context.
func (q *Queue) bury(a *attempt, condition string) bool {
	status, message := a.failure(condition)
	attributes, err := json.Marshal(map[string]any{"custom": map[string]string{
		"RequestID": a.RequestID, "ErrorCode": strconv.Itoa(status), "ErrorMessage": message,
	}})
	if err == nil {
		var done bool
		if done, err = q.forward(a, a.plan.DeadLetter, &Event{Payload: a.payload, ClientContext: string(attributes)}); err == nil {
			return done
		}
	}
	q.observer.DeadLetterFailed(a.Target)
	q.log.Warn("dead letter cannot be delivered", "function", a.Target.String(), "requestId", a.RequestID, "target", a.plan.DeadLetter, "error", err)
	return true
}

// failure is what dead letters say of the last attempt: its HTTP status and its
// error message.
func (a *attempt) failure(condition string) (status int, message string) {
	switch {
	case a.result != nil:
		var e struct {
			ErrorMessage string `json:"errorMessage"`
		}
		status, message = http.StatusOK, string(a.response)
		if json.Unmarshal(a.response, &e) == nil && e.ErrorMessage != "" {
			message = e.ErrorMessage
		}
	case condition == conditionReserved:
		status, message = http.StatusTooManyRequests, "Function not invoked. Function is configured with zero reserved concurrent executions"
	case condition == conditionRecursion:
		status, message = http.StatusBadRequest, "Function not invoked. It was invoked in a recursive loop"
	default:
		status = int(a.status)
		message = "Function not invoked. The event is older than its maximum age"
		if status == 0 {
			status = http.StatusTooManyRequests
		}
	}
	if len(message) > maxErrorMessage {
		message = message[:maxErrorMessage]
	}
	return status, strings.ToValidUTF8(message, "")
}

// forward queues an event for another function, as part of the same chain. An
// error says that it can never be delivered; done is false where the queue was
// closed before it was.
func (q *Queue) forward(a *attempt, arn string, e *Event) (done bool, err error) {
	target, ok := TargetOf(arn)
	if !ok {
		return false, errors.New("it is not a Lambda function")
	}
	if len(e.Payload) > MaxPayload {
		return false, fmt.Errorf("%d bytes are too large for an event (limit %d bytes)", len(e.Payload), MaxPayload)
	}
	switch plan, err := q.functions.Plan(target); {
	case errors.Is(err, ErrNoFunction):
		return false, err
	case err == nil:
		target.FunctionID = plan.FunctionID
	}
	e.Target, e.RequestID, e.Trace = target, uuid.NewString(), a.onward
	return q.persist(a, func(ctx context.Context) error { return q.Accept(ctx, e) }), nil
}
