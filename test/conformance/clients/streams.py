"""Data streams through boto3: records come back as they were put. Needs NAME."""
import os

import boto3

name = "stream-" + os.environ["NAME"]
# boto3 before 1.28 does not know AWS_ENDPOINT_URL.
explicit = {"endpoint_url": os.environ["AWS_ENDPOINT_URL"]} if os.environ.get("EXPLICIT_ENDPOINT") else {}
client = boto3.client("kinesis", **explicit)


def read(shard, **start):
    iterator = client.get_shard_iterator(StreamName=name, ShardId=shard, **start)["ShardIterator"]
    answer = client.get_records(ShardIterator=iterator)
    assert answer["MillisBehindLatest"] == 0 and answer["NextShardIterator"], answer
    return answer["Records"]


client.create_stream(StreamName=name, ShardCount=2)
client.get_waiter("stream_exists").wait(StreamName=name, WaiterConfig={"Delay": 1})
one = client.put_record(StreamName=name, PartitionKey="k", Data=b"\x00one\xff")
many = client.put_records(StreamName=name, Records=[{"PartitionKey": str(i), "Data": str(i).encode()} for i in range(200)])
assert many["FailedRecordCount"] == 0, many

shards = [s["ShardId"] for s in client.list_shards(StreamName=name)["Shards"]]
records = {s: read(s, ShardIteratorType="TRIM_HORIZON") for s in shards}
assert sum(map(len, records.values())) == 201, records
for list_ in records.values():
    numbers = [int(r["SequenceNumber"]) for r in list_]
    assert numbers == sorted(set(numbers)), numbers
first = read(one["ShardId"], ShardIteratorType="AT_SEQUENCE_NUMBER", StartingSequenceNumber=one["SequenceNumber"])[0]
assert (first["Data"], first["PartitionKey"]) == (b"\x00one\xff", "k"), first
when = first["ApproximateArrivalTimestamp"]
assert len(read(one["ShardId"], ShardIteratorType="AT_TIMESTAMP", Timestamp=when)) == len(records[one["ShardId"]])

client.delete_stream(StreamName=name)
client.get_waiter("stream_not_exists").wait(StreamName=name, WaiterConfig={"Delay": 1})
try:
    client.put_record(StreamName=name, PartitionKey="k", Data=b"x")
    raise AssertionError("a deleted stream took a record")
except client.exceptions.ResourceNotFoundException:
    pass
print("OK")
