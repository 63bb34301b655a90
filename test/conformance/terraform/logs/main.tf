variable "v" {
  type = number
}

resource "aws_cloudwatch_log_group" "g" {
  name              = "/tf/group"
  retention_in_days = var.v == 1 ? 7 : 14
  tags              = { v = var.v }
}
resource "aws_cloudwatch_log_group" "never" {
  name_prefix = "/tf/never-"
}
resource "aws_cloudwatch_log_stream" "s" {
  name           = "stream"
  log_group_name = aws_cloudwatch_log_group.g.name
}
data "aws_cloudwatch_log_group" "g" { name = aws_cloudwatch_log_group.g.name }
data "aws_cloudwatch_log_groups" "all" {
  log_group_name_prefix = "/tf/"
  depends_on            = [aws_cloudwatch_log_group.g, aws_cloudwatch_log_group.never]
}
