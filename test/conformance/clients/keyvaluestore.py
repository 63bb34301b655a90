"""The life of a key value store's pairs through boto3 with awscrt, which signs with
SigV4A. Needs NAME, of a store that is there and empty."""
import os
import socket

import boto3
from botocore.exceptions import ClientError

# The client puts the account's number before the endpoint's host, and not every
# resolver knows names below localhost.
resolve = socket.getaddrinfo
socket.getaddrinfo = lambda host, *rest, **more: resolve("localhost" if str(host).endswith(".localhost") else host, *rest, **more)

arn = boto3.client("cloudfront").describe_key_value_store(Name=os.environ["NAME"])["KeyValueStore"]["ARN"]
client = boto3.client("cloudfront-keyvaluestore")
etag = client.describe_key_value_store(KvsARN=arn)["ETag"]
key = "a/b c?ü"
put = client.put_key(KvsARN=arn, Key=key, Value="värde", IfMatch=etag)
assert put["ItemCount"] == 1, put
assert client.get_key(KvsARN=arn, Key=key)["Value"] == "värde"
try:
    client.put_key(KvsARN=arn, Key=key, Value="stale", IfMatch=etag)
    raise AssertionError("a stale ETag was accepted")
except ClientError as e:
    assert e.response["Error"]["Code"] == "ValidationException", e
update = client.update_keys(
    KvsARN=arn, IfMatch=put["ETag"], Deletes=[{"Key": key}], Puts=[{"Key": f"k{i:02}", "Value": str(i)} for i in range(25)])
assert update["ItemCount"] == 25, update
pages = client.get_paginator("list_keys").paginate(KvsARN=arn)
assert [i["Key"] for p in pages for i in p["Items"]] == [f"k{i:02}" for i in range(25)]
gone = client.delete_key(KvsARN=arn, Key="k00", IfMatch=update["ETag"])
assert gone["ItemCount"] == 24, gone
try:
    client.get_key(KvsARN=arn, Key="k00")
    raise AssertionError("a key that is gone was found")
except client.exceptions.ResourceNotFoundException:
    pass
print("OK")
