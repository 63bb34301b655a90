"""The life of a function through boto3. Needs NAME, RUNTIME, ROLE, V1 and V2."""
import base64
import datetime
import json
import os
import time
import urllib.error
import urllib.request

import boto3
from botocore.exceptions import ClientError

name, runtime, role = os.environ["NAME"], os.environ["RUNTIME"], os.environ["ROLE"]
code1, code2 = (open(os.environ[v], "rb").read() for v in ("V1", "V2"))
# boto3 before 1.28 does not know AWS_ENDPOINT_URL.
explicit = {"endpoint_url": os.environ["AWS_ENDPOINT_URL"]} if os.environ.get("EXPLICIT_ENDPOINT") else {}
client = boto3.client("lambda", **explicit)


def invoke(qualifier):
    r = client.invoke(FunctionName=name, Qualifier=qualifier, Payload=json.dumps({"who": "boto3"}))
    assert "FunctionError" not in r, r["Payload"].read()
    answer = json.loads(r["Payload"].read())
    assert answer["event"] == {"who": "boto3"}, answer
    return answer["version"], r["ExecutedVersion"]


created = client.create_function(
    FunctionName=name, Runtime=runtime, Handler="index.handler", Role=role, Code={"ZipFile": code1}, MemorySize=1769, Timeout=60,
    Environment={"Variables": {"GREETING": "hi"}}, Tags={"team": "birds"})
assert created["State"] in ("Pending", "Active"), created
client.get_waiter("function_active_v2").wait(FunctionName=name, WaiterConfig={"Delay": 1})
assert invoke("$LATEST") == (1, "$LATEST")

tail = base64.b64decode(client.invoke(FunctionName=name, LogType="Tail")["LogResult"]).decode()
assert "START RequestId" in tail and "REPORT RequestId" in tail, tail

assert client.publish_version(FunctionName=name)["Version"] == "1"
revision = client.get_function_configuration(FunctionName=name)["RevisionId"]
client.update_function_code(FunctionName=name, ZipFile=code2, RevisionId=revision)
client.get_waiter("function_updated_v2").wait(FunctionName=name, WaiterConfig={"Delay": 1})
assert invoke("$LATEST")[0] == 2 and invoke("1") == (1, "1")
try:
    client.update_function_code(FunctionName=name, ZipFile=code2, RevisionId=revision)
    raise AssertionError("a stale RevisionId was accepted")
except client.exceptions.PreconditionFailedException as e:
    assert e.response["ResponseMetadata"]["HTTPStatusCode"] == 412

assert client.publish_version(FunctionName=name)["Version"] == "2"
client.create_alias(FunctionName=name, Name="live", FunctionVersion="1",
                    RoutingConfig={"AdditionalVersionWeights": {"2": 0.5}})
seen = {invoke("live")[0] for _ in range(40)}
assert seen == {1, 2}, seen
client.update_alias(FunctionName=name, Name="live", FunctionVersion="2", RoutingConfig={"AdditionalVersionWeights": {}})
assert {invoke("live")[0] for _ in range(5)} == {2}

pages = client.get_paginator("list_functions").paginate(PaginationConfig={"PageSize": 1})
assert name in [f["FunctionName"] for p in pages for f in p["Functions"]]
assert [a["Name"] for a in client.list_aliases(FunctionName=name)["Aliases"]] == ["live"]
assert len(client.list_versions_by_function(FunctionName=name)["Versions"]) == 3
assert client.list_tags(Resource=created["FunctionArn"])["Tags"] == {"team": "birds"}

layers = [client.publish_layer_version(LayerName=name, Content={"ZipFile": code}, CompatibleRuntimes=[runtime]) for code in (code1, code2)]
assert [v["Version"] for v in client.list_layer_versions(LayerName=name, CompatibleRuntime=runtime)["LayerVersions"]] == [2, 1]
client.update_function_configuration(FunctionName=name, Layers=[layers[0]["LayerVersionArn"]])
client.get_waiter("function_updated_v2").wait(FunctionName=name, WaiterConfig={"Delay": 1})
assert [(x["Arn"], x["CodeSize"]) for x in client.get_function_configuration(FunctionName=name)["Layers"]] == [(layers[0]["LayerVersionArn"], len(code1))]
try:
    client.update_function_configuration(FunctionName=name, Layers=[v["LayerVersionArn"] for v in layers])
    raise AssertionError("two versions of one layer were accepted")
except client.exceptions.InvalidParameterValueException as e:
    assert "Two different versions of the same layer" in str(e), e
client.update_function_configuration(FunctionName=name, Layers=[])
client.get_waiter("function_updated_v2").wait(FunctionName=name, WaiterConfig={"Delay": 1})
assert "Layers" not in client.get_function_configuration(FunctionName=name)
client.add_layer_version_permission(LayerName=name, VersionNumber=2, StatementId="all", Action="lambda:GetLayerVersion", Principal="*")
assert json.loads(client.get_layer_version_policy(LayerName=name, VersionNumber=2)["Policy"])["Statement"][0]["Principal"] == "*"
for v in layers:
    client.delete_layer_version(LayerName=name, VersionNumber=v["Version"])

signing = client.create_code_signing_config(
    AllowedPublishers={"SigningProfileVersionArns": [f"arn:aws:signer:{os.environ['AWS_REGION']}:{os.environ['LAPWING_ACCOUNT_ID']}:/signing-profiles/mine/v1"]},
    CodeSigningPolicies={"UntrustedArtifactOnDeployment": "Enforce"})["CodeSigningConfig"]["CodeSigningConfigArn"]
client.put_function_code_signing_config(FunctionName=name, CodeSigningConfigArn=signing)
assert client.list_functions_by_code_signing_config(CodeSigningConfigArn=signing)["FunctionArns"] == [created["FunctionArn"]]
try:
    client.update_function_code(FunctionName=name, ZipFile=code1)
    raise AssertionError("unsigned code was deployed")
except client.exceptions.CodeVerificationFailedException:
    pass
client.update_code_signing_config(CodeSigningConfigArn=signing, CodeSigningPolicies={"UntrustedArtifactOnDeployment": "Warn"})
client.update_function_code(FunctionName=name, ZipFile=code2)
client.get_waiter("function_updated_v2").wait(FunctionName=name, WaiterConfig={"Delay": 1})
client.delete_function_code_signing_config(FunctionName=name)
client.delete_code_signing_config(CodeSigningConfigArn=signing)

if hasattr(client, "put_runtime_management_config"):  # boto3 1.26.54
    served = client.get_function_configuration(FunctionName=name)["RuntimeVersionConfig"]["RuntimeVersionArn"]
    client.put_runtime_management_config(FunctionName=name, UpdateRuntimeOn="Manual", RuntimeVersionArn=served)
    assert client.get_runtime_management_config(FunctionName=name)["RuntimeVersionArn"] == served
    assert invoke("$LATEST")[0] == 2
    client.put_runtime_management_config(FunctionName=name, UpdateRuntimeOn="Auto")

if hasattr(client, "invoke_with_response_stream"):  # boto3 1.26.107
    stream = client.invoke_with_response_stream(FunctionName=name, Payload=b'{"who":"stream"}')
    chunks = b"".join(e["PayloadChunk"]["Payload"] for e in stream["EventStream"] if "PayloadChunk" in e)
    assert json.loads(chunks)["event"] == {"who": "stream"}, chunks

failed = client.invoke(FunctionName=name, Payload=json.dumps({"fail": "on purpose"}))
assert failed["FunctionError"] == "Unhandled" and failed["StatusCode"] == 200, failed
assert json.loads(failed["Payload"].read())["errorMessage"] == "on purpose"

try:
    client.invoke(FunctionName=name, Payload=b"{broken")
    raise AssertionError("broken JSON was accepted")
except ClientError as e:
    assert e.response["Error"]["Code"] == "InvalidRequestContentException", e

logs = boto3.client("logs", **explicit)
for _ in range(200):
    events = logs.filter_log_events(logGroupName="/aws/lambda/" + name, filterPattern="REPORT")["events"]
    if len(events) >= 4:
        break
    time.sleep(0.3)
assert len(events) >= 4, events

cloudwatch = boto3.client("cloudwatch", **explicit)
now = datetime.datetime.now(datetime.timezone.utc)
span = {"StartTime": now.replace(minute=0, second=0, microsecond=0) - datetime.timedelta(hours=1), "EndTime": now + datetime.timedelta(hours=1)}
dimensions = [{"Name": "Wood", "Value": "oak"}]


def sums(namespace, metric, dimensions):
    points = cloudwatch.get_metric_statistics(
        Namespace=namespace, MetricName=metric, Dimensions=dimensions, Period=10800, Statistics=["Sum"], **span)["Datapoints"]
    return [p["Sum"] for p in points]


cloudwatch.put_metric_data(Namespace=name, MetricData=[
    {"MetricName": "birds", "Dimensions": dimensions, "Timestamp": now, "Value": 3, "Unit": "Count"},
    {"MetricName": "birds", "Dimensions": dimensions, "Timestamp": now, "Values": [1, 2], "Counts": [2, 4], "Unit": "Count"}])
assert sums(name, "birds", dimensions) == [13]
listed = [m for p in cloudwatch.get_paginator("list_metrics").paginate(Namespace=name) for m in p["Metrics"]]
assert listed == [{"Namespace": name, "MetricName": "birds", "Dimensions": dimensions}], listed
data = cloudwatch.get_metric_data(MetricDataQueries=[
    {"Id": "m1", "MetricStat": {"Metric": {"Namespace": name, "MetricName": "birds", "Dimensions": dimensions}, "Period": 10800, "Stat": "p90"}},
    {"Id": "e1", "Expression": "100 * m1 / SUM(METRICS())", "Label": "share"}], **span)
assert [(r["Id"], r["Label"], r["StatusCode"], r["Values"]) for r in data["MetricDataResults"]] == [
    ("m1", "birds", "Complete", [3]), ("e1", "share", "Complete", [100])], data
try:
    cloudwatch.put_metric_data(Namespace=name, MetricData=[{"MetricName": "birds", "Value": 1, "Timestamp": now - datetime.timedelta(days=15)}])
    raise AssertionError("data of 15 days ago were accepted")
except cloudwatch.exceptions.InvalidParameterValueException as e:
    assert "two weeks in the past" in str(e), e

# What functions do is measured, within ten seconds or when it is asked for.
url = client.create_function_url_config(FunctionName=name, AuthType="NONE")["FunctionUrl"]
try:
    urllib.request.urlopen(url + "birds")
    raise AssertionError("a URL that nobody was permitted to use was open")
except urllib.error.HTTPError as e:
    assert e.code == 403, e
client.put_function_event_invoke_config(FunctionName=name, MaximumRetryAttempts=0)
client.invoke(FunctionName=name, InvocationType="Event", Payload=json.dumps({"fail": "on purpose"}))
of = [{"Name": "FunctionName", "Value": name}]
for metric, value in {"UrlRequestCount": 1, "Url4xxCount": 1, "AsyncEventsReceived": 1, "AsyncEventsDropped": 1, "Errors": 2}.items():
    for _ in range(200):
        if sums("AWS/Lambda", metric, of) == [value]:
            break
        time.sleep(0.3)
    assert sums("AWS/Lambda", metric, of) == [value], (metric, sums("AWS/Lambda", metric, of))

client.delete_function(FunctionName=name)
try:
    client.get_function(FunctionName=name)
    raise AssertionError("still there after its deletion")
except client.exceptions.ResourceNotFoundException:
    pass
print("OK")
