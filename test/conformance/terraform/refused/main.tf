terraform {
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 5.0"
    }
  }
}

# What Lapwing does not have is refused by an error that says what it is.
resource "aws_s3_bucket" "b" {
  bucket = "tf-refused"
}
resource "aws_s3_bucket_cors_configuration" "b" {
  bucket = aws_s3_bucket.b.id
  cors_rule {
    allowed_methods = ["GET"]
    allowed_origins = ["*"]
  }
}
resource "aws_s3_bucket_server_side_encryption_configuration" "b" {
  bucket = aws_s3_bucket.b.id
  rule {
    apply_server_side_encryption_by_default { sse_algorithm = "AES256" }
  }
}
resource "aws_kinesis_stream" "s" {
  name        = "tf-refused"
  shard_count = 1
}
resource "aws_lambda_event_source_mapping" "m" {
  event_source_arn  = aws_kinesis_stream.s.arn
  function_name     = "f"
  starting_position = "LATEST"
}
resource "aws_sqs_queue" "q" {
  name = "tf-refused"
}
