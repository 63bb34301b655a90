variable "v" {
  type = number
}

resource "aws_kinesis_stream" "s" {
  name             = "tf-stream"
  shard_count      = var.v
  retention_period = 24 * var.v
  tags             = { v = var.v }
}
resource "aws_kinesis_stream" "d" {
  name = "tf-demand"
  stream_mode_details { stream_mode = "ON_DEMAND" }
}
data "aws_kinesis_stream" "s" { name = aws_kinesis_stream.s.name }
