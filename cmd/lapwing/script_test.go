package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"github.com/rogpeppe/go-internal/testscript"

	"lapwing.dev/lapwing/internal/credentials"
	"lapwing.dev/lapwing/test/harness"
)

// TestMain lets the test binary be the program in the scripts.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"lapwing": main})
}

// TestScript runs the command line as users do. Beyond testscript's own commands
// the scripts have:
//
//	ready LOG            waits for the server of $LAPWING_DATA that prints to LOG
//	eventually PROG ARG… runs a program until it succeeds
//	waitfor FILE TEXT    waits until a file holds a text
//	deploy NAME          creates a function that runs testdata/function
//	metered N FUNCTION…  waits until N invocations are in usage, which is then as the REPORT lines say
//	measured METRIC STATISTIC VALUE [FUNCTION]  waits until a metric of Lambda has a value
//	embedded NAMESPACE METRIC SUM  waits until a metric has a sum
//	busyport VAR         sets a variable to an address that is taken
//	freeports VAR        sets a variable to an address whose port, like the one after it, is free
func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Setenv("LAPWING_DATA", filepath.Join(e.WorkDir, "data"))
			e.Setenv("XDG_CACHE_HOME", filepath.Join(e.WorkDir, "cache"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"ready":      ready,
			"waitfor":    waitFor,
			"eventually": eventually,
			"deploy":     deployBootstrap,
			"metered":    metered,
			"measured":   measured,
			"embedded":   embedded,
			"busyport":   busyPort,
			"freeports":  freePorts,
		},
		Condition: func(c string) (bool, error) {
			return c == "root" && os.Geteuid() == 0, nil
		},
	})
}

// patience is how long a script waits for what must happen on any machine.
const patience = 5 * time.Minute

func until(ts *testscript.TestScript, what string, done func() bool) {
	for end := time.Now().Add(patience); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			ts.Fatalf("waited in vain for %s", what)
		}
	}
}

func want(ts *testscript.TestScript, neg bool, args []string, n int, usage string) {
	if neg || len(args) < n {
		ts.Fatalf("usage: %s", usage)
	}
}

func ready(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, args, 1, "ready LOG")
	log := ts.MkAbs(args[0])
	until(ts, "the server", func() bool {
		b, _ := os.ReadFile(log)
		return strings.Contains(string(b), "is ready at")
	})
}

func waitFor(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, args, 2, "waitfor FILE TEXT")
	until(ts, args[1], func() bool {
		b, _ := os.ReadFile(ts.MkAbs(args[0]))
		return strings.Contains(string(b), args[1])
	})
}

func eventually(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, args, 1, "eventually PROG ARG...")
	until(ts, strings.Join(args, " "), func() bool { return ts.Exec(args[0], args[1:]...) == nil })
}

func busyPort(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, args, 1, "busyport VAR")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Defer(func() { l.Close() })
	ts.Setenv(args[0], l.Addr().String())
}

func freePorts(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, args, 1, "freeports VAR")
	until(ts, "two ports side by side", func() bool {
		a, err := net.Listen("tcp", "127.0.0.1:0")
		ts.Check(err)
		defer a.Close()
		b, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", a.Addr().(*net.TCPAddr).Port+1))
		if err != nil {
			return false
		}
		ts.Setenv(args[0], a.Addr().String())
		return b.Close() == nil
	})
}

func deployBootstrap(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, args, 1, "deploy NAME")
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	data := ts.MkAbs(ts.Getenv("LAPWING_DATA"))
	cfg, err := client(data)
	ts.Check(err)
	root, err := credentials.Read(filepath.Join(data, credentialsDir))
	ts.Check(err)
	program, err := harness.Program("./testdata/function")
	ts.Check(err)
	c := lambda.NewFromConfig(cfg)
	_, err = c.CreateFunction(ctx, &lambda.CreateFunctionInput{
		FunctionName: &args[0], Runtime: types.RuntimeProvidedal2023, Handler: aws.String("x"),
		Timeout: aws.Int32(120), MemorySize: aws.Int32(1769),
		Role: aws.String("arn:aws:iam::" + root.AccountID + ":role/r"),
		Code: &types.FunctionCode{ZipFile: harness.Zip(map[string]string{"bootstrap*": program})},
	})
	ts.Check(err)
	active := lambda.NewFunctionActiveV2Waiter(c, func(o *lambda.FunctionActiveV2WaiterOptions) { o.MinDelay = 50 * time.Millisecond })
	ts.Check(active.Wait(ctx, &lambda.GetFunctionInput{FunctionName: &args[0]}, patience))
}

func TestShellQuoteSurvivesAnyContent(t *testing.T) {
	for in, want := range map[string]string{
		"":            "''",
		"a b":         "'a b'",
		"it's":        `'it'\''s'`,
		"$(x) `y` \\": "'$(x) `y` \\'",
	} {
		if got := shellQuote(in); got != want {
			t.Errorf("shellQuote(%q) = %s, want %s", in, got, want)
		}
	}
}

func TestSizesReadWell(t *testing.T) {
	for in, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 1 << 20: "1.0 MiB", 250 << 20: "250.0 MiB"} {
		if got := size(in); got != want {
			t.Errorf("size(%d) = %s, want %s", in, got, want)
		}
	}
}

func TestReachableIsAnAddressToConnectTo(t *testing.T) {
	for in, want := range map[string]string{
		"0.0.0.0:4566": "127.0.0.1:4566", "[::]:4566": "127.0.0.1:4566",
		"127.0.0.1:1": "127.0.0.1:1", "192.0.2.7:80": "192.0.2.7:80", "[::1]:80": "[::1]:80",
	} {
		a, err := net.ResolveTCPAddr("tcp", in)
		if err != nil {
			t.Fatal(err)
		}
		if got := reachable(a); got != want {
			t.Errorf("reachable(%s) = %s, want %s", in, got, want)
		}
	}
}
