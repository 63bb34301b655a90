package stack

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"lapwing.dev/lapwing/internal/deploy/archive"
)

// patience is how long something may take to become ready.
const patience = 10 * time.Minute

// maxDirect is the largest package that goes along with a request, in bytes;
// larger ones go through S3 (Lambda quotas: 50 MB zipped, for direct upload).
const maxDirect = 45 << 20

var functionKinds = map[string]kind{"AWS::Lambda::Function": {
	properties: "FunctionName! Code* Role* Handler Runtime Description Timeout MemorySize Environment Layers Architectures EphemeralStorage" +
		" DeadLetterConfig TracingConfig LoggingConfig ReservedConcurrentExecutions RecursiveLoop RuntimeManagementConfig" +
		" CodeSigningConfigArn TenancyConfig! PackageType! ImageConfig SnapStart Tags",
	attributes: []string{"Arn"}, name: "FunctionName", limit: 64,
	check: checkFunction, create: createFunction, update: updateFunction, remove: removeFunction, read: readFunction,
}}

// configuration are the properties that UpdateFunctionConfiguration sets.
var configuration = []string{"Role", "Handler", "Runtime", "Description", "Timeout", "MemorySize", "Environment", "Layers", "EphemeralStorage",
	"DeadLetterConfig", "TracingConfig", "LoggingConfig", "ImageConfig", "SnapStart"}

// defaults are what these are where a template does not say (Lambda API reference,
// CreateFunction). Functions from images have no layers, and others no
// ImageConfig.
func defaults(name string, image bool) map[string]any {
	m := map[string]any{"Description": "", "Timeout": int64(3), "MemorySize": int64(128), "Environment": map[string]any{"Variables": map[string]any{}},
		"EphemeralStorage": map[string]any{"Size": int64(512)}, "DeadLetterConfig": map[string]any{"TargetArn": ""},
		"TracingConfig": map[string]any{"Mode": "PassThrough"}, "LoggingConfig": map[string]any{"LogFormat": "Text", "LogGroup": "/aws/lambda/" + name},
		"SnapStart": map[string]any{"ApplyOn": "None"}}
	if image {
		m["ImageConfig"] = map[string]any{}
	} else {
		m["Layers"] = []any{}
	}
	return m
}

var errMissing = errors.New("is missing")

func functionInput(c *call) (*lambda.CreateFunctionInput, error) {
	in := &lambda.CreateFunctionInput{FunctionName: &c.id}
	if err := bind(c.only(append([]string{"Architectures", "TenancyConfig", "CodeSigningConfigArn", "PackageType"}, configuration...)...), in); err != nil {
		return nil, err
	}
	tags, err := tagMap(c.props["Tags"])
	in.Tags = tags
	return in, err
}

func checkFunction(c *call) error {
	in, err := functionInput(c)
	if err != nil {
		return err
	}
	image := in.PackageType == types.PackageTypeImage
	for _, name := range []string{"Handler", "Runtime"} {
		if !image && c.props[name] == nil {
			return within(name, errMissing)
		}
	}
	for _, name := range []string{"Handler", "Runtime", "Layers"} {
		if image && c.props[name] != nil {
			return within(name, errors.New("is not for PackageType Image"))
		}
	}
	if err := bind(c.only("ReservedConcurrentExecutions"), &lambda.PutFunctionConcurrencyInput{}); err != nil {
		return err
	}
	if err := bind(c.props["RuntimeManagementConfig"], &lambda.PutRuntimeManagementConfigInput{}); err != nil {
		return within("RuntimeManagementConfig", err)
	}
	code, ok := c.props["Code"].(map[string]any)
	if !ok {
		return within("Code", errors.New("must be a mapping or a path"))
	}
	for name := range code {
		if !slices.Contains([]string{"S3Bucket", "S3Key", "S3ObjectVersion", "ZipFile", "ImageUri", "Package"}, name) {
			return within("Code", fmt.Errorf("has no %s in Lapwing", name))
		}
	}
	if image != (code["ImageUri"] != nil) {
		return within("Code", errors.New("has ImageUri with PackageType Image, and only with it"))
	}
	if image {
		return nil
	}
	if runtime := c.str("Runtime"); code["ZipFile"] != nil && runtime != "" && !strings.HasPrefix(runtime, "nodejs") && !strings.HasPrefix(runtime, "python") {
		return within("Code", errors.New("has ZipFile, a text, which is for Node.js and Python only: put the code into a folder"))
	}
	if code["ZipFile"] == nil && code["Package"] == nil && (code["S3Bucket"] == nil || code["S3Key"] == nil) {
		return within("Code", errors.New("needs ZipFile, or S3Bucket and S3Key"))
	}
	return nil
}

func createFunction(ctx context.Context, c *call) error {
	in, err := functionInput(c)
	if err != nil {
		return err
	}
	src, err := c.source(ctx)
	if err != nil {
		return err
	}
	defer src.release()
	in.Code = &types.FunctionCode{ZipFile: src.zip, S3Bucket: src.bucket, S3Key: src.key, S3ObjectVersion: src.version, ImageUri: src.image}
	if _, err := c.Lambda.CreateFunction(ctx, in); err != nil {
		return err
	}
	c.made = true
	active := lambda.NewFunctionActiveV2Waiter(c.Lambda, func(o *lambda.FunctionActiveV2WaiterOptions) {
		o.MinDelay, o.MaxDelay = 50*time.Millisecond, time.Second
	})
	if err := active.Wait(ctx, &lambda.GetFunctionInput{FunctionName: &c.id}, patience); err != nil {
		return c.whyNot(ctx, err)
	}
	return c.beside(ctx, true)
}

func updateFunction(ctx context.Context, c *call) error {
	if c.has("Code", "Architectures") {
		in := &lambda.UpdateFunctionCodeInput{FunctionName: &c.id}
		if err := bind(c.only("Architectures"), in); err != nil {
			return err
		}
		src, err := c.source(ctx)
		if err != nil {
			return err
		}
		defer src.release()
		in.ZipFile, in.S3Bucket, in.S3Key, in.S3ObjectVersion, in.ImageUri = src.zip, src.bucket, src.key, src.version, src.image
		if _, err := c.Lambda.UpdateFunctionCode(ctx, in); err != nil {
			return err
		}
		if err := c.updated(ctx); err != nil {
			return err
		}
	}
	if c.has(configuration...) {
		all := defaults(c.id, c.str("PackageType") == string(types.PackageTypeImage))
		for name, v := range c.only(configuration...) {
			if d, ok := all[name].(map[string]any); ok && name == "LoggingConfig" {
				if own, ok := v.(map[string]any); ok {
					d = maps.Clone(d)
					maps.Copy(d, own)
					v = d
				}
			}
			all[name] = v
		}
		in := &lambda.UpdateFunctionConfigurationInput{FunctionName: &c.id}
		if err := bind(all, in); err != nil {
			return err
		}
		if _, err := c.Lambda.UpdateFunctionConfiguration(ctx, in); err != nil {
			return err
		}
		if err := c.updated(ctx); err != nil {
			return err
		}
	}
	return c.beside(ctx, false)
}

func (c *call) updated(ctx context.Context) error {
	w := lambda.NewFunctionUpdatedV2Waiter(c.Lambda, func(o *lambda.FunctionUpdatedV2WaiterOptions) {
		o.MinDelay, o.MaxDelay = 50*time.Millisecond, time.Second
	})
	if err := w.Wait(ctx, &lambda.GetFunctionInput{FunctionName: &c.id}, patience); err != nil {
		return c.whyNot(ctx, err)
	}
	return nil
}

// whyNot adds the function's own reason to the error of a waiter.
func (c *call) whyNot(ctx context.Context, err error) error {
	out, getErr := c.Lambda.GetFunctionConfiguration(ctx, &lambda.GetFunctionConfigurationInput{FunctionName: &c.id})
	if getErr != nil {
		return err
	}
	for _, reason := range []*string{out.StateReason, out.LastUpdateStatusReason} {
		if aws.ToString(reason) != "" {
			return fmt.Errorf("function %s: %s", c.id, *reason)
		}
	}
	return err
}

// beside sets what has operations of its own. A new function has the defaults of
// what is not given.
func (c *call) beside(ctx context.Context, created bool) error {
	due := func(name string) bool { return c.has(name) && (!created || c.props[name] != nil) }
	if due("ReservedConcurrentExecutions") {
		if err := c.putConcurrency(ctx); err != nil {
			return err
		}
	}
	if due("RecursiveLoop") {
		in := &lambda.PutFunctionRecursionConfigInput{FunctionName: &c.id, RecursiveLoop: types.RecursiveLoopTerminate}
		if err := bind(c.only("RecursiveLoop"), in); err != nil {
			return err
		}
		if _, err := c.Lambda.PutFunctionRecursionConfig(ctx, in); err != nil {
			return err
		}
	}
	if due("RuntimeManagementConfig") {
		in := &lambda.PutRuntimeManagementConfigInput{FunctionName: &c.id, UpdateRuntimeOn: types.UpdateRuntimeOnAuto}
		if err := bind(c.props["RuntimeManagementConfig"], in); err != nil {
			return err
		}
		if _, err := c.Lambda.PutRuntimeManagementConfig(ctx, in); err != nil {
			return err
		}
	}
	if created {
		return nil
	}
	if due("CodeSigningConfigArn") {
		if err := c.putCodeSigning(ctx); err != nil {
			return err
		}
	}
	if due("Tags") {
		return c.putTags(ctx)
	}
	return nil
}

func (c *call) putConcurrency(ctx context.Context) error {
	if c.props["ReservedConcurrentExecutions"] == nil {
		_, err := c.Lambda.DeleteFunctionConcurrency(ctx, &lambda.DeleteFunctionConcurrencyInput{FunctionName: &c.id})
		return err
	}
	in := &lambda.PutFunctionConcurrencyInput{FunctionName: &c.id}
	if err := bind(c.only("ReservedConcurrentExecutions"), in); err != nil {
		return err
	}
	_, err := c.Lambda.PutFunctionConcurrency(ctx, in)
	return err
}

func (c *call) putCodeSigning(ctx context.Context) error {
	arn := c.str("CodeSigningConfigArn")
	if arn == "" {
		_, err := c.Lambda.DeleteFunctionCodeSigningConfig(ctx, &lambda.DeleteFunctionCodeSigningConfigInput{FunctionName: &c.id})
		return err
	}
	_, err := c.Lambda.PutFunctionCodeSigningConfig(ctx, &lambda.PutFunctionCodeSigningConfigInput{FunctionName: &c.id, CodeSigningConfigArn: &arn})
	return err
}

func (c *call) putTags(ctx context.Context) error {
	wanted, err := tagMap(c.props["Tags"])
	if err != nil {
		return err
	}
	arn := aws.String(c.arn("lambda", "function:"+c.id))
	there, err := c.Lambda.ListTags(ctx, &lambda.ListTagsInput{Resource: arn})
	if err != nil {
		return err
	}
	var gone []string
	for key := range there.Tags {
		if _, ok := wanted[key]; !ok {
			gone = append(gone, key)
		}
	}
	if len(gone) > 0 {
		if _, err := c.Lambda.UntagResource(ctx, &lambda.UntagResourceInput{Resource: arn, TagKeys: gone}); err != nil {
			return err
		}
	}
	if len(wanted) > 0 {
		_, err = c.Lambda.TagResource(ctx, &lambda.TagResourceInput{Resource: arn, Tags: wanted})
	}
	return err
}

func removeFunction(ctx context.Context, c *call) error {
	_, err := c.Lambda.DeleteFunction(ctx, &lambda.DeleteFunctionInput{FunctionName: &c.id})
	return err
}

func readFunction(_ context.Context, c *call) (map[string]string, error) {
	return map[string]string{"": c.id, "Arn": c.arn("lambda", "function:"+c.id)}, nil
}

// source is code on its way to Lambda: bytes, an object in S3, or an image.
type source struct {
	zip                         []byte
	bucket, key, version, image *string
	release                     func() // to be called when the code has arrived
}

// source gets the code of a function or the content of a layer ready.
func (c *call) source(ctx context.Context) (*source, error) {
	from, ok := c.props["Code"].(map[string]any)
	if !ok {
		from, _ = c.props["Content"].(map[string]any)
	}
	s := &source{release: func() {}}
	if pack, ok := from["Package"].(archive.Package); ok {
		return s, c.load(ctx, s, pack)
	}
	if inline, ok := text(from["ZipFile"]); ok {
		dir, err := os.MkdirTemp("", "lapwing-deploy-")
		if err != nil {
			return nil, err
		}
		defer os.RemoveAll(dir)
		name := "index.js"
		if strings.HasPrefix(c.str("Runtime"), "python") {
			name = "index.py"
		}
		pack, err := archive.Text(filepath.Join(dir, "code.zip"), name, inline)
		if err != nil {
			return nil, err
		}
		return s, c.load(ctx, s, pack)
	}
	return s, bind(map[string]any{"Bucket": from["S3Bucket"], "Key": from["S3Key"], "Version": from["S3ObjectVersion"], "Image": from["ImageUri"]},
		&struct{ Bucket, Key, Version, Image **string }{&s.bucket, &s.key, &s.version, &s.image})
}

// load reads a package, or puts it into S3 if it is too large to go along with a
// request.
func (c *call) load(ctx context.Context, s *source, pack archive.Package) (err error) {
	if pack.Size <= maxDirect {
		s.zip, err = os.ReadFile(pack.Path)
		return err
	}
	f, err := os.Open(pack.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	// The key is of this deployment alone: another one may be uploading, too.
	bucket, key := "lapwing-stacks-"+c.Account+"-"+c.Region, "packages/"+strings.ToLower(rand.Text())+".zip"
	if err := createBucket(ctx, c.S3, bucket, c.Region); err != nil && !isConflict(err) {
		return err
	}
	if _, err := c.S3.PutObject(ctx, &s3.PutObjectInput{Bucket: &bucket, Key: &key, Body: f}); err != nil {
		return fmt.Errorf("cannot upload the package: %w", err)
	}
	s.bucket, s.key = &bucket, &key
	s.release = func() {
		// Lambda has a copy. What stays here after a failure costs space only.
		c.S3.DeleteObject(context.WithoutCancel(ctx), &s3.DeleteObjectInput{Bucket: &bucket, Key: &key})
	}
	return nil
}
