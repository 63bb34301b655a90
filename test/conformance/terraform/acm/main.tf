variable "v" {
  type = number
}

resource "aws_acm_certificate" "imported" {
  private_key      = file("${path.module}/cert.key")
  certificate_body = file("${path.module}/cert.pem")
  tags             = { v = var.v }
}
resource "aws_acm_certificate" "requested" {
  domain_name               = "requested.example.org"
  subject_alternative_names = ["www.requested.example.org"]
  validation_method         = "DNS"
  tags                      = { v = var.v }
  lifecycle { create_before_destroy = true }
}
data "aws_acm_certificate" "imported" {
  domain     = "imported.example.org"
  statuses   = ["ISSUED"]
  depends_on = [aws_acm_certificate.imported]
}
output "validation" {
  value = aws_acm_certificate.requested.domain_validation_options
}
