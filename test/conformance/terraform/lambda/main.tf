variable "v" {
  type = number
}

data "aws_caller_identity" "me" {}
data "aws_iam_policy_document" "assume" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["lambda.amazonaws.com", "edgelambda.amazonaws.com"]
    }
  }
}
resource "aws_iam_role" "r" {
  name               = "tf-lambda"
  assume_role_policy = data.aws_iam_policy_document.assume.json
}
resource "aws_cloudwatch_log_group" "g" {
  name              = "/aws/lambda/tf-full"
  retention_in_days = 7
}
resource "aws_s3_bucket" "code" {
  bucket        = "tf-lambda-code"
  force_destroy = true
}
resource "aws_s3_object" "code" {
  bucket = aws_s3_bucket.code.id
  key    = "v${var.v}.zip"
  source = "${path.module}/v${var.v}.zip"
}
resource "aws_lambda_layer_version" "l" {
  layer_name               = "tf-layer"
  filename                 = "${path.module}/layer${var.v}.zip"
  source_code_hash         = filebase64sha256("${path.module}/layer${var.v}.zip")
  compatible_runtimes      = ["nodejs22.x"]
  compatible_architectures = ["x86_64"]
  description              = "a layer"
  license_info             = "MIT"
}
resource "aws_lambda_layer_version_permission" "l" {
  layer_name     = aws_lambda_layer_version.l.layer_name
  version_number = aws_lambda_layer_version.l.version
  statement_id   = "all"
  action         = "lambda:GetLayerVersion"
  principal      = data.aws_caller_identity.me.account_id
}
resource "aws_lambda_function" "full" {
  function_name                  = "tf-full"
  description                    = "v${var.v}"
  role                           = aws_iam_role.r.arn
  runtime                        = "nodejs22.x"
  handler                        = "index.handler"
  filename                       = "${path.module}/v${var.v}.zip"
  source_code_hash               = filebase64sha256("${path.module}/v${var.v}.zip")
  memory_size                    = 128 * var.v
  timeout                        = 10 * var.v
  architectures                  = ["x86_64"]
  layers                         = [aws_lambda_layer_version.l.arn]
  publish                        = true
  reserved_concurrent_executions = 5
  environment {
    variables = { VERSION = var.v }
  }
  ephemeral_storage { size = 1024 }
  logging_config {
    log_format            = "JSON"
    application_log_level = "INFO"
    system_log_level      = "WARN"
    log_group             = aws_cloudwatch_log_group.g.name
  }
  tracing_config { mode = "Active" }
  tags = { v = var.v }
  timeouts { create = "5m" }
}
resource "aws_lambda_function" "s3" {
  function_name = "tf-s3"
  role          = aws_iam_role.r.arn
  runtime       = "nodejs22.x"
  handler       = "index.handler"
  s3_bucket     = aws_s3_object.code.bucket
  s3_key        = aws_s3_object.code.key
}
resource "aws_lambda_alias" "live" {
  name             = "live"
  function_name    = aws_lambda_function.full.function_name
  function_version = aws_lambda_function.full.version
  description      = "v${var.v}"
}
resource "aws_lambda_alias" "weighted" {
  name             = "weighted"
  function_name    = aws_lambda_function.full.function_name
  function_version = aws_lambda_function.full.version
  dynamic "routing_config" {
    for_each = var.v == 1 ? [] : [1]
    content { additional_version_weights = { "1" = 0.25 } }
  }
}
resource "aws_lambda_permission" "url" {
  statement_id           = "url"
  action                 = "lambda:InvokeFunctionUrl"
  function_name          = aws_lambda_function.full.function_name
  principal              = "*"
  function_url_auth_type = "NONE"
}
resource "aws_lambda_permission" "invoke" {
  action         = "lambda:InvokeFunction"
  function_name  = aws_lambda_function.full.function_name
  qualifier      = aws_lambda_alias.live.name
  principal      = "s3.amazonaws.com"
  source_arn     = aws_s3_bucket.code.arn
  source_account = data.aws_caller_identity.me.account_id
}
resource "aws_lambda_function_url" "u" {
  function_name      = aws_lambda_function.full.function_name
  authorization_type = "NONE"
  invoke_mode        = var.v == 1 ? "BUFFERED" : "RESPONSE_STREAM"
  cors {
    allow_origins = ["https://example.com"]
    allow_methods = ["GET"]
    max_age       = 60
  }
}
resource "aws_lambda_function_url" "alias" {
  function_name      = aws_lambda_function.full.function_name
  qualifier          = aws_lambda_alias.live.name
  authorization_type = "AWS_IAM"
}
resource "aws_lambda_function_event_invoke_config" "e" {
  function_name                = aws_lambda_function.full.function_name
  maximum_event_age_in_seconds = 60 * var.v
  maximum_retry_attempts       = 0
  destination_config {
    on_failure { destination = aws_lambda_function.s3.arn }
  }
}
resource "aws_lambda_provisioned_concurrency_config" "p" {
  function_name                     = aws_lambda_function.full.function_name
  qualifier                         = aws_lambda_alias.live.name
  provisioned_concurrent_executions = var.v
}
resource "aws_lambda_runtime_management_config" "m" {
  function_name     = aws_lambda_function.s3.function_name
  update_runtime_on = "FunctionUpdate"
}
resource "aws_lambda_function_recursion_config" "rc" {
  function_name  = aws_lambda_function.s3.function_name
  recursive_loop = "Allow"
}
resource "aws_lambda_code_signing_config" "c" {
  description = "v${var.v}"
  allowed_publishers { signing_profile_version_arns = ["arn:aws:signer:us-east-1:${data.aws_caller_identity.me.account_id}:/signing-profiles/x/abcdefghij"] }
  policies { untrusted_artifact_on_deployment = "Warn" }
}
resource "aws_lambda_invocation" "i" {
  function_name = aws_lambda_function.s3.function_name
  input         = jsonencode({ v = var.v })
}
data "aws_lambda_function" "f" {
  function_name = aws_lambda_function.full.function_name
  qualifier     = aws_lambda_alias.live.name
}
data "aws_lambda_alias" "a" {
  function_name = aws_lambda_function.full.function_name
  name          = aws_lambda_alias.live.name
}
data "aws_lambda_layer_version" "l" { layer_name = aws_lambda_layer_version.l.layer_name }
data "aws_lambda_functions" "all" { depends_on = [aws_lambda_function.full] }
data "aws_lambda_function_url" "u" { function_name = aws_lambda_function_url.u.function_name }

resource "aws_lambda_function" "snap" {
  function_name = "tf-snap"
  role          = aws_iam_role.r.arn
  runtime       = "python3.13"
  handler       = "index.handler"
  filename      = "${path.module}/python.zip"
  publish       = true
  description   = "v${var.v}"
  snap_start { apply_on = "PublishedVersions" }
}
resource "aws_lambda_function" "image" {
  function_name = "tf-image"
  role          = aws_iam_role.r.arn
  package_type  = "Image"
  image_uri     = var.image
  timeout       = 10 * var.v
  image_config {
    command = ["v${var.v}"]
  }
}
variable "image" {
  type = string
}
