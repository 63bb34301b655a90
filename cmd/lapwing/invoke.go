package main

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"github.com/spf13/cobra"
)

func invokeCommand(data *string) *cobra.Command {
	var payload, qualifier string
	var quiet bool
	cmd := &cobra.Command{
		Use:   "invoke FUNCTION",
		Short: "Invoke a function and print its response",
		Long: `Invoke a function and wait for it. FUNCTION is a name or an ARN. The response
goes to standard output, the last 4 KB of the log to standard error. A function
that fails makes the exit code 1.`,
		Example: `  lapwing invoke hello --payload '{"name":"Ada"}'
  lapwing invoke hello --payload @event.json
  echo '{}' | lapwing invoke hello --payload -`,
		Args:              exactArgs("FUNCTION"),
		ValidArgsFunction: completeFunction(data),
		RunE: func(cmd *cobra.Command, args []string) error {
			event, err := readPayload(payload, cmd.InOrStdin())
			if err != nil {
				return err
			}
			cfg, err := client(*data)
			if err != nil {
				return err
			}
			in := &lambda.InvokeInput{FunctionName: &args[0], Payload: event}
			if qualifier != "" {
				in.Qualifier = &qualifier
			}
			if !quiet {
				in.LogType = types.LogTypeTail
			}
			out, err := lambda.NewFromConfig(cfg).Invoke(cmd.Context(), in)
			if err != nil {
				return explain(err, *data, "`lapwing functions` lists the functions.")
			}
			if out.LogResult != nil {
				tail, err := base64.StdEncoding.DecodeString(*out.LogResult)
				if err != nil {
					return fmt.Errorf("log tail: %w", err)
				}
				cmd.ErrOrStderr().Write(tail)
			}
			fmt.Fprintln(cmd.OutOrStdout(), string(out.Payload))
			if out.FunctionError != nil {
				return errors.New("the function failed; its error is printed above")
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&payload, "payload", "p", "{}", "the event: JSON, @FILE, or - for standard input")
	cmd.Flags().StringVar(&qualifier, "qualifier", "", "version or alias to invoke")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "do not print the log")
	return cmd
}

func readPayload(s string, stdin io.Reader) ([]byte, error) {
	b := []byte(s)
	var err error
	if s == "-" {
		b, err = io.ReadAll(stdin)
	} else if name, isFile := strings.CutPrefix(s, "@"); isFile {
		b, err = os.ReadFile(name)
	}
	if err != nil {
		return nil, fmt.Errorf("payload: %w", err)
	}
	if !json.Valid(b) {
		return nil, usageError{errors.New("the payload is not valid JSON; quote it for the shell: --payload '{\"key\":\"value\"}'")}
	}
	return b, nil
}
