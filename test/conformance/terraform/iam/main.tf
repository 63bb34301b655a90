variable "v" {
  type = number
}

data "aws_caller_identity" "me" {}
data "aws_iam_policy_document" "assume" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["lambda.amazonaws.com"]
    }
  }
}
resource "aws_iam_role" "r" {
  name                 = "tf-role"
  description          = "role ${var.v}"
  assume_role_policy   = data.aws_iam_policy_document.assume.json
  tags                 = { v = var.v }
  max_session_duration = 3600 * var.v
}
resource "aws_iam_role" "prefix" {
  name_prefix        = "tf-"
  path               = "/service/"
  assume_role_policy = jsonencode({ Version = "2012-10-17", Statement = [{ Effect = "Allow", Action = "sts:AssumeRole", Principal = { Service = ["lambda.amazonaws.com", "edgelambda.amazonaws.com"] } }] })
}
data "aws_iam_policy_document" "p" {
  statement {
    actions   = ["logs:CreateLogGroup", "logs:PutLogEvents"]
    resources = ["*"]
  }
  statement {
    sid       = "V${var.v}"
    effect    = "Deny"
    actions   = ["s3:*"]
    resources = ["arn:aws:s3:::x/*"]
    condition {
      test     = "StringEquals"
      variable = "aws:PrincipalAccount"
      values   = ["1"]
    }
  }
}
resource "aws_iam_policy" "p" {
  name        = "tf-policy"
  description = "d"
  policy      = data.aws_iam_policy_document.p.json
  tags        = { v = var.v }
}
resource "aws_iam_role_policy" "rp" {
  name   = "own"
  role   = aws_iam_role.r.id
  policy = data.aws_iam_policy_document.p.json
}
resource "aws_iam_role_policy_attachment" "a" {
  role       = aws_iam_role.r.name
  policy_arn = aws_iam_policy.p.arn
}
resource "aws_iam_role_policy_attachment" "m" {
  role       = aws_iam_role.r.name
  policy_arn = "arn:aws:iam::aws:policy/service-role/AWSLambdaBasicExecutionRole"
}
resource "aws_iam_role_policies_exclusive" "x" {
  role_name    = aws_iam_role.r.name
  policy_names = [aws_iam_role_policy.rp.name]
}
resource "aws_iam_user" "u" {
  name          = "tf-user"
  tags          = { v = var.v }
  force_destroy = true
}
resource "aws_iam_access_key" "k" { user = aws_iam_user.u.name }
resource "aws_iam_user_policy" "up" {
  user   = aws_iam_user.u.name
  name   = "up"
  policy = data.aws_iam_policy_document.p.json
}
resource "aws_iam_user_policy_attachment" "ua" {
  user       = aws_iam_user.u.name
  policy_arn = aws_iam_policy.p.arn
}
data "aws_iam_role" "r" { name = aws_iam_role.r.name }
data "aws_iam_policy" "p" { arn = aws_iam_policy.p.arn }
data "aws_iam_policy" "managed" { name = "AWSLambdaBasicExecutionRole" }
data "aws_iam_user" "u" { user_name = aws_iam_user.u.name }
data "aws_iam_session_context" "s" { arn = data.aws_caller_identity.me.arn }
