package lambda

import (
	"testing"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/lambda"
)

func TestReservedConcurrency(t *testing.T) {
	f := newFixture(t)
	f.create("hello")
	f.create("other")
	ctx := f.ctx()
	put := func(name string, n int32) error {
		_, err := f.PutFunctionConcurrency(ctx, &api.PutFunctionConcurrencyInput{FunctionName: &name, ReservedConcurrentExecutions: &n})
		return err
	}
	if err := put("hello", 400); err != nil {
		t.Fatal(err)
	}
	const below = "Specified ReservedConcurrentExecutions for function decreases account's UnreservedConcurrentExecution below its minimum value of [100]."
	wantError(t, put("other", 501), codeInvalid, below)
	wantError(t, put("hello", 901), codeInvalid, below)
	if err := put("other", 500); err != nil {
		t.Error(err)
	}
	wantError(t, put("nobody", 1), codeNotFound, "Function not found: "+arnPrefix+"nobody:$LATEST")
	wantError(t, put(arnPrefix+"hello:1", 1), codeInvalid, "This operation is permitted on Lambda functions only. Aliases and versions do not support this operation.")
	settings, err := f.GetAccountSettings(ctx, &api.GetAccountSettingsInput{})
	if err != nil || *settings.AccountLimit.UnreservedConcurrentExecutions != 100 || *settings.AccountLimit.ConcurrentExecutions != 1000 || *settings.AccountUsage.FunctionCount != 2 {
		t.Errorf("%+v %+v %v", settings.AccountLimit, settings.AccountUsage, err)
	}
	if n := f.invoker.limits[arnPrefix+"hello"].Reserved; n == nil || *n != 400 {
		t.Errorf("the data plane was told %v", n)
	}
	if _, err := f.DeleteFunctionConcurrency(ctx, &api.DeleteFunctionConcurrencyInput{FunctionName: aws.Ptr("hello")}); err != nil {
		t.Fatal(err)
	}
	if err := put("other", 0); err != nil {
		t.Fatal(err)
	}
	got, err := f.GetFunctionConcurrency(ctx, &api.GetFunctionConcurrencyInput{FunctionName: aws.Ptr("hello")})
	if err != nil || got.ReservedConcurrentExecutions != nil {
		t.Errorf("after deletion: %v %v", got, err)
	}
	got, err = f.GetFunctionConcurrency(ctx, &api.GetFunctionConcurrencyInput{FunctionName: aws.Ptr("other")})
	if err != nil || got.ReservedConcurrentExecutions == nil || *got.ReservedConcurrentExecutions != 0 {
		t.Errorf("reserved none: %v %v", got, err)
	}
}

func TestReservationsCanShrinkUnderALoweredLimit(t *testing.T) {
	f := newFixture(t)
	f.create("hello")
	put := func(n int32) error {
		_, err := f.PutFunctionConcurrency(f.ctx(), &api.PutFunctionConcurrencyInput{FunctionName: aws.Ptr("hello"), ReservedConcurrentExecutions: &n})
		return err
	}
	if err := put(900); err != nil {
		t.Fatal(err)
	}
	f.opts.Concurrency = 150
	f.reopen()
	if err := put(100); err != nil {
		t.Error(err)
	}
	wantError(t, put(101), codeInvalid, "decreases account's UnreservedConcurrentExecution below its minimum value of [100].")
}
