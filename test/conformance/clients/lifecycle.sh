#!/bin/sh
# The life of a function through the AWS CLI. Needs NAME, RUNTIME, ROLE and the
# code packages V1 and V2, which answer {"version":1,...} and {"version":2,...}.
set -eu
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
echo '{"who":"cli"}' >"$out/event"
# CLIs before 2.13 do not know AWS_ENDPOINT_URL.
if [ -n "${EXPLICIT_ENDPOINT:-}" ]; then
	aws() { command aws --endpoint-url "$AWS_ENDPOINT_URL" "$@"; }
fi
fail() { echo "FAILED: $*" >&2; exit 1; }
want() { [ "$2" = "$3" ] || fail "$1: got '$2', want '$3'"; }
invoke() { # QUALIFIER -> the version in the answer
	aws lambda invoke --function-name "$NAME" --qualifier "$1" --payload "fileb://$out/event" "$out/answer" \
		--query ExecutedVersion --output text >"$out/executed"
	grep -q '"who": *"cli"' "$out/answer" || fail "event not echoed: $(cat "$out/answer")"
	sed -n 's/.*"version": *\([0-9]*\).*/\1/p' "$out/answer"
}

aws sts get-caller-identity >/dev/null
aws lambda create-function --function-name "$NAME" --runtime "$RUNTIME" --handler index.handler \
	--role "$ROLE" --memory-size 1769 --timeout 60 --zip-file "fileb://$V1" --environment 'Variables={GREETING=hi}' >/dev/null
aws lambda wait function-active-v2 --function-name "$NAME"
want 'first invocation' "$(invoke '$LATEST')" 1
want 'executed version' "$(cat "$out/executed")" '$LATEST'

tail=$(aws lambda invoke --function-name "$NAME" --log-type Tail "$out/answer" --query LogResult --output text | base64 -d)
echo "$tail" | grep -q 'REPORT RequestId' || fail "no REPORT in the log tail: $tail"

want 'published version' "$(aws lambda publish-version --function-name "$NAME" --query Version --output text)" 1
aws lambda update-function-code --function-name "$NAME" --zip-file "fileb://$V2" >/dev/null
aws lambda wait function-updated-v2 --function-name "$NAME"
aws lambda update-function-configuration --function-name "$NAME" --memory-size 1770 --timeout 61 >/dev/null
aws lambda wait function-updated-v2 --function-name "$NAME"
want 'memory' "$(aws lambda get-function-configuration --function-name "$NAME" --query MemorySize --output text)" 1770
want 'after the update' "$(invoke '$LATEST')" 2
want 'version 1 after the update' "$(invoke 1)" 1

aws lambda create-alias --function-name "$NAME" --name live --function-version 1 >/dev/null
want 'alias' "$(invoke live)" 1
want 'second version' "$(aws lambda publish-version --function-name "$NAME" --query Version --output text)" 2
aws lambda update-alias --function-name "$NAME" --name live --function-version 2 >/dev/null
want 'alias after its update' "$(invoke live)" 2
aws lambda list-functions --query 'Functions[].FunctionName' --output text | tr '\t' '\n' | grep -qx "$NAME" || fail 'not in the list'

url=$(aws lambda get-function --function-name "$NAME" --query Code.Location --output text)
curl -fsS -o "$out/code.zip" "$url"
cmp "$out/code.zip" "$V2" || fail 'the downloaded code differs'

# Each call takes the CLI a second or more, so that the rest is for the newest one
# alone. Other clients of this machine make the same calls.
if [ -z "${EXPLICIT_ENDPOINT:-}" ]; then
	want 'aliases' "$(aws lambda list-aliases --function-name "$NAME" --query 'Aliases[].Name' --output text)" live
	want 'versions' "$(aws lambda list-versions-by-function --function-name "$NAME" --query 'length(Versions)' --output text)" 3
	layer=$(aws lambda publish-layer-version --layer-name "$NAME" --zip-file "fileb://$V1" --compatible-runtimes "$RUNTIME" --query LayerVersionArn --output text)
	aws lambda update-function-configuration --function-name "$NAME" --layers "$layer" >/dev/null
	aws lambda wait function-updated-v2 --function-name "$NAME"
	want 'layers' "$(aws lambda get-function-configuration --function-name "$NAME" --query 'Layers[].Arn' --output text)" "$layer"
	curl -fsS -o "$out/layer.zip" "$(aws lambda get-layer-version-by-arn --arn "$layer" --query Content.Location --output text)"
	cmp "$out/layer.zip" "$V1" || fail 'the downloaded layer differs'
	aws lambda delete-layer-version --layer-name "$NAME" --version-number 1
	want 'with a deleted layer' "$(invoke '$LATEST')" 2

	signing=$(aws lambda create-code-signing-config --allowed-publishers "SigningProfileVersionArns=arn:aws:signer:$AWS_REGION:$LAPWING_ACCOUNT_ID:/signing-profiles/mine/v1" \
		--code-signing-policies UntrustedArtifactOnDeployment=Enforce --query CodeSigningConfig.CodeSigningConfigArn --output text)
	aws lambda put-function-code-signing-config --function-name "$NAME" --code-signing-config-arn "$signing" >/dev/null
	if aws lambda update-function-code --function-name "$NAME" --zip-file "fileb://$V1" 2>"$out/error"; then fail 'unsigned code was deployed'; fi
	grep -q CodeVerificationFailedException "$out/error" || fail "unexpected error: $(cat "$out/error")"
	aws lambda delete-function-code-signing-config --function-name "$NAME"
	aws lambda delete-code-signing-config --code-signing-config-arn "$signing"

	aws cloudwatch list-metrics --namespace AWS/Lambda --metric-name Invocations --dimensions "Name=FunctionName,Value=$NAME" \
		--query 'Metrics[].MetricName' --output text | grep -q Invocations || fail 'no metric of the invocations'

	# Three whole hours, of which this is the second. Some versions write 13 for 13.0.
	whole() { sed 's/\.0//g'; }
	hour=$(($(date -u +%s) / 3600 * 3600 - 3600)) && from=$(date -u -d "@$hour" +%FT%TZ) && to=$(date -u -d "@$((hour + 10800))" +%FT%TZ)
	aws cloudwatch put-metric-data --namespace "$NAME" --metric-name birds --dimensions Wood=oak --unit Count --value 3
	aws cloudwatch put-metric-data --namespace "$NAME" --metric-data "MetricName=birds,Dimensions=[{Name=Wood,Value=oak}],Unit=Count,Values=[1,2],Counts=[2,4]"
	want 'metrics' "$(aws cloudwatch list-metrics --namespace "$NAME" --query 'Metrics[].[MetricName,Dimensions[0].Name,Dimensions[0].Value]' --output text)" "$(printf 'birds\tWood\toak')"
	want 'statistics' "$(aws cloudwatch get-metric-statistics --namespace "$NAME" --metric-name birds --dimensions Name=Wood,Value=oak --statistics Sum SampleCount Maximum \
		--start-time "$from" --end-time "$to" --period 10800 --query 'Datapoints[].[Sum,SampleCount,Maximum,Unit]' --output text | whole)" "$(printf '13\t7\t3\tCount')"
	want 'metric data' "$(aws cloudwatch get-metric-data --start-time "$from" --end-time "$to" --query 'MetricDataResults[].[Id,Label,StatusCode,Values[0]]' --output text --metric-data-queries \
		"[{\"Id\":\"m1\",\"MetricStat\":{\"Metric\":{\"Namespace\":\"$NAME\",\"MetricName\":\"birds\",\"Dimensions\":[{\"Name\":\"Wood\",\"Value\":\"oak\"}]},\"Period\":10800,\"Stat\":\"p90\"}}]" | whole)" "$(printf 'm1\tbirds\tComplete\t3')"

	aws lambda tag-resource --resource "$(aws lambda get-function --function-name "$NAME" --query Configuration.FunctionArn --output text)" --tags team=birds
	want 'tag' "$(aws lambda get-function --function-name "$NAME" --query Tags.team --output text)" birds
	aws lambda put-function-concurrency --function-name "$NAME" --reserved-concurrent-executions 3 >/dev/null
	want 'concurrency' "$(aws lambda get-function-concurrency --function-name "$NAME" --query ReservedConcurrentExecutions --output text)" 3
	aws lambda add-permission --function-name "$NAME" --statement-id s1 --action lambda:InvokeFunction --principal s3.amazonaws.com >/dev/null
	aws lambda get-policy --function-name "$NAME" --query Policy --output text | grep -q s3.amazonaws.com || fail 'policy lacks its statement'
fi

for i in $(seq 100); do
	lines=$(aws logs filter-log-events --log-group-name "/aws/lambda/$NAME" --query 'length(events)' --output text)
	[ "$lines" -ge 4 ] && break
	sleep 0.3
done
[ "$lines" -ge 4 ] || fail "only $lines log events"

aws lambda delete-alias --function-name "$NAME" --name live
aws lambda delete-function --function-name "$NAME"
if aws lambda get-function --function-name "$NAME" 2>"$out/error"; then fail 'still there after its deletion'; fi
grep -q ResourceNotFoundException "$out/error" || fail "unexpected error: $(cat "$out/error")"
echo OK
