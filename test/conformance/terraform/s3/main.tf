variable "v" {
  type = number
}

data "aws_caller_identity" "me" {}
data "aws_region" "here" {}
data "aws_partition" "here" {}
data "aws_canonical_user_id" "c" {}
resource "aws_s3_bucket" "b" {
  bucket        = "tf-bucket-one"
  force_destroy = true
  tags          = { v = var.v }
}
resource "aws_s3_bucket" "plain" {
  bucket_prefix = "tf-plain-"
}
resource "aws_s3_bucket_versioning" "b" {
  bucket = aws_s3_bucket.b.id
  versioning_configuration { status = "Enabled" }
}
resource "aws_s3_object" "o" {
  bucket       = aws_s3_bucket.b.id
  key          = "folder/hello.txt"
  content      = "hello ${var.v}"
  content_type = "text/plain"
  tags         = { a = "b" }
  metadata     = { who = "me" }
  depends_on   = [aws_s3_bucket_versioning.b]
}
resource "aws_s3_object" "f" {
  bucket     = aws_s3_bucket.b.id
  key        = "main.tf"
  source     = "${path.module}/main.tf"
  etag       = filemd5("${path.module}/main.tf")
  depends_on = [aws_s3_bucket_versioning.b]
}
resource "aws_s3_object_copy" "c" {
  bucket = aws_s3_bucket.b.id
  key    = "copy.tf"
  source = "${aws_s3_bucket.b.id}/${aws_s3_object.f.key}"
}
data "aws_s3_bucket" "b" { bucket = aws_s3_bucket.b.id }
data "aws_s3_object" "o" {
  bucket = aws_s3_object.o.bucket
  key    = aws_s3_object.o.key
}
data "aws_s3_objects" "all" {
  bucket     = aws_s3_bucket.b.id
  depends_on = [aws_s3_object.f]
}

resource "aws_s3_bucket_policy" "b" {
  bucket = aws_s3_bucket.b.id
  policy = data.aws_iam_policy_document.read.json
}
data "aws_iam_policy_document" "read" {
  statement {
    sid       = "v${var.v}"
    actions   = ["s3:GetObject"]
    resources = ["${aws_s3_bucket.b.arn}/*"]
    principals {
      type        = "Service"
      identifiers = ["cloudfront.amazonaws.com"]
    }
    condition {
      test     = "StringEquals"
      variable = "AWS:SourceAccount"
      values   = [data.aws_caller_identity.me.account_id]
    }
  }
}
resource "aws_s3_bucket_public_access_block" "b" {
  bucket                  = aws_s3_bucket.b.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = var.v == 1
  restrict_public_buckets = true
}
resource "aws_s3_bucket_ownership_controls" "plain" {
  bucket = aws_s3_bucket.plain.id
  rule { object_ownership = var.v == 1 ? "BucketOwnerPreferred" : "ObjectWriter" }
}
resource "aws_s3_bucket_acl" "plain" {
  bucket     = aws_s3_bucket.plain.id
  acl        = "private"
  depends_on = [aws_s3_bucket_ownership_controls.plain]
}
output "account" {
  value = "${data.aws_partition.here.partition}:${data.aws_region.here.name}:${data.aws_canonical_user_id.c.id}"
}
