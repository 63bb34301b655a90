// Command demo shows Lapwing at work: it starts bin/lapwing on a new directory,
// deploys a Node.js function that makes a report of a file in S3, invokes it
// through the AWS SDK for Go and shows what came out, what it logged and what
// it would cost on AWS. `make demo` runs it.
package main

import (
	"context"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

const (
	function = "sales-report"
	bucket   = "lapwing-demo"
	object   = "november/sales.csv"
	runtime  = types.RuntimeNodejs22x

	trustPolicy = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"lambda.amazonaws.com"},"Action":"sts:AssumeRole"}]}`
)

//go:embed report/sales.csv
var sales string

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// run needs the paths of the lapwing binary and of the function's code package.
func run(ctx context.Context, args []string) error {
	if len(args) != 2 {
		return errors.New("usage: demo LAPWING-BINARY CODE.zip")
	}
	code, err := os.ReadFile(args[1])
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "lapwing-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	l := &lapwing{binary: args[0], data: filepath.Join(dir, "data")}
	if err := l.prepare(ctx); err != nil {
		return err
	}
	if err := l.start(ctx, filepath.Join(dir, "server.log")); err != nil {
		return err
	}
	defer l.stop()
	cfg, err := l.config()
	if err != nil {
		return err
	}
	if err := deploy(ctx, cfg, code); err != nil {
		return err
	}
	if err := show(ctx, cfg); err != nil {
		return err
	}
	whatNext("bin/lapwing")
	return l.stop()
}

// step says what comes next.
func step(format string, args ...any) { fmt.Printf("\n==> "+format+"\n", args...) }

// deploy puts the data into S3 and creates the role and the function.
func deploy(ctx context.Context, cfg aws.Config, code []byte) error {
	step("Storing the sales figures in S3: s3://%s/%s", bucket, object)
	store := s3.NewFromConfig(cfg, func(o *s3.Options) { o.UsePathStyle = true })
	if _, err := store.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: aws.String(bucket)}); err != nil {
		return err
	}
	if _, err := store.PutObject(ctx, &s3.PutObjectInput{Bucket: aws.String(bucket), Key: aws.String(object), Body: strings.NewReader(sales)}); err != nil {
		return err
	}

	step("Creating the role and the %s function %q (%.1f MiB of code)", runtime, function, float64(len(code))/(1<<20))
	roles := iam.NewFromConfig(cfg)
	role, err := roles.CreateRole(ctx, &iam.CreateRoleInput{RoleName: aws.String(function + "-role"), AssumeRolePolicyDocument: aws.String(trustPolicy)})
	if err != nil {
		return err
	}
	for _, policy := range []string{"service-role/AWSLambdaBasicExecutionRole", "AmazonS3FullAccess"} {
		if _, err := roles.AttachRolePolicy(ctx, &iam.AttachRolePolicyInput{RoleName: role.Role.RoleName, PolicyArn: aws.String("arn:aws:iam::aws:policy/" + policy)}); err != nil {
			return err
		}
	}
	functions := lambda.NewFromConfig(cfg)
	_, err = functions.CreateFunction(ctx, &lambda.CreateFunctionInput{
		FunctionName: aws.String(function),
		Runtime:      runtime,
		Handler:      aws.String("index.handler"),
		Role:         role.Role.Arn,
		MemorySize:   aws.Int32(512),
		Timeout:      aws.Int32(30),
		Code:         &types.FunctionCode{ZipFile: code},
	})
	if err != nil {
		return err
	}
	waiter := lambda.NewFunctionActiveV2Waiter(functions, func(o *lambda.FunctionActiveV2WaiterOptions) { o.MinDelay = 100 * time.Millisecond })
	return waiter.Wait(ctx, &lambda.GetFunctionInput{FunctionName: aws.String(function)}, time.Minute)
}

// show invokes the function cold and warm and prints what came of it.
func show(ctx context.Context, cfg aws.Config) error {
	functions := lambda.NewFromConfig(cfg)
	event := fmt.Appendf(nil, `{"bucket":%q,"key":%q}`, bucket, object)
	for _, kind := range []string{"cold: a new sandbox is started for it", "warm: the same one is used again"} {
		step("Invoking it (%s)", kind)
		began := time.Now()
		out, err := functions.Invoke(ctx, &lambda.InvokeInput{FunctionName: aws.String(function), Payload: event, LogType: types.LogTypeTail})
		if err != nil {
			return err
		}
		took := time.Since(began)
		if out.FunctionError != nil {
			return fmt.Errorf("the function failed: %s", out.Payload)
		}
		tail, err := base64.StdEncoding.DecodeString(aws.ToString(out.LogResult))
		if err != nil {
			return err
		}
		fmt.Printf("%s\n\nanswered in %v; log tail:\n%s", out.Payload, took.Round(100*time.Microsecond), indent(string(tail)))
		cost, err := costOf(string(tail))
		if err != nil {
			return err
		}
		fmt.Printf("on AWS a million of these would cost $%.2f, here what your machine costs\n", cost)
	}

	step("The report that the function wrote to S3")
	store := s3.NewFromConfig(cfg, func(o *s3.Options) { o.UsePathStyle = true })
	report, err := store.GetObject(ctx, &s3.GetObjectInput{Bucket: aws.String(bucket), Key: aws.String("november/sales.txt")})
	if err != nil {
		return err
	}
	defer report.Body.Close()
	text, err := io.ReadAll(report.Body)
	if err != nil {
		return err
	}
	fmt.Println(string(text))

	step("Its log in CloudWatch Logs: /aws/lambda/%s", function)
	return printLog(ctx, cloudwatchlogs.NewFromConfig(cfg))
}

func printLog(ctx context.Context, logs *cloudwatchlogs.Client) error {
	in := &cloudwatchlogs.FilterLogEventsInput{LogGroupName: aws.String("/aws/lambda/" + function)}
	for range 20 { // what a function prints is stored a moment later
		out, err := logs.FilterLogEvents(ctx, in)
		if err != nil {
			return err
		}
		var b strings.Builder
		for _, e := range out.Events {
			b.WriteString(strings.TrimRight(aws.ToString(e.Message), "\n") + "\n")
		}
		if strings.Count(b.String(), "REPORT RequestId") == 2 {
			fmt.Print(indent(b.String()))
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return errors.New("the log of both invocations did not appear")
}

var reportLine = regexp.MustCompile(`Billed Duration: (\d+) ms\s+Memory Size: (\d+) MB`)

// costOf returns the price in US dollars of a million invocations like the one
// in the log: AWS's list price for x86 in us-east-1.
func costOf(log string) (float64, error) {
	m := reportLine.FindStringSubmatch(log)
	if m == nil {
		return 0, errors.New("no REPORT line in the log tail")
	}
	billed, err1 := strconv.ParseFloat(m[1], 64)
	memory, err2 := strconv.ParseFloat(m[2], 64)
	const perGBSecond, perMillion = 0.0000166667, 0.20
	return perMillion + 1e6*perGBSecond*billed/1000*memory/1024, errors.Join(err1, err2)
}

func whatNext(binary string) {
	step("That was all real. What to try next")
	for _, next := range [][2]string{
		{"sudo " + binary + " up", "start Lapwing for good"},
		{`eval "$(sudo ` + binary + ` env)"`, "point this shell's AWS clients at it"},
		{"aws lambda list-functions", "or create-function, invoke, publish-version…"},
		{"sudo " + binary + " runtimes", "see which runtimes there are, and add some"},
		{"sudo " + binary + " logs -f FUNCTION", "follow a function's log"},
	} {
		fmt.Printf("  %-36s  %s\n", next[0], next[1])
	}
}

func indent(s string) string {
	return "    " + strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "\n    ") + "\n"
}

// lapwing is the program under demonstration.
type lapwing struct {
	binary, data string
	cmd          *exec.Cmd
	exited       chan error
}

// prepare adds the runtime that the function needs.
func (l *lapwing) prepare(ctx context.Context) error {
	if err := os.MkdirAll(l.data, 0o700); err != nil {
		return err
	}
	step("Making sure that %s is there", runtime)
	cmd := exec.CommandContext(ctx, l.binary, "runtimes", "add", "--data", l.data, string(runtime))
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w", strings.Join(cmd.Args, " "), err)
	}
	return nil
}

// start starts the server on a free port and waits until it is ready.
func (l *lapwing) start(ctx context.Context, logFile string) error {
	log, err := os.Create(logFile)
	if err != nil {
		return err
	}
	defer log.Close()
	l.cmd = exec.Command(l.binary, "up", "--data", l.data, "--listen", "127.0.0.1:0")
	l.cmd.Stdout, l.cmd.Stderr = log, log
	step("Starting Lapwing: %s", strings.Join(l.cmd.Args, " "))
	began := time.Now()
	if err := l.cmd.Start(); err != nil {
		return err
	}
	l.exited = make(chan error, 1)
	go func() { l.exited <- l.cmd.Wait() }()
	for {
		if exec.CommandContext(ctx, l.binary, "functions", "--data", l.data).Run() == nil {
			fmt.Printf("ready after %v\n", time.Since(began).Round(time.Millisecond))
			return nil
		}
		select {
		case err := <-l.exited:
			out, _ := os.ReadFile(logFile)
			return fmt.Errorf("lapwing ended (%v):\n%s", err, out)
		case <-ctx.Done():
			return errors.Join(ctx.Err(), l.stop())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// config makes an SDK configuration of what `lapwing env` tells.
func (l *lapwing) config() (cfg aws.Config, err error) {
	out, err := exec.Command(l.binary, "env", "--json", "--data", l.data).Output()
	if err != nil {
		return cfg, fmt.Errorf("lapwing env: %w", err)
	}
	var env map[string]string
	if err := json.Unmarshal(out, &env); err != nil {
		return cfg, err
	}
	return aws.Config{
		Region:       env["AWS_REGION"],
		BaseEndpoint: aws.String(env["AWS_ENDPOINT_URL"]),
		Credentials:  credentials.NewStaticCredentialsProvider(env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"], ""),
	}, nil
}

// stop stops the server and waits for it.
func (l *lapwing) stop() error {
	if l.cmd == nil {
		return nil
	}
	defer func() { l.cmd = nil }()
	if err := l.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case err := <-l.exited:
		return err
	case <-time.After(30 * time.Second):
		return errors.Join(errors.New("lapwing did not stop in 30 s"), l.cmd.Process.Kill())
	}
}
