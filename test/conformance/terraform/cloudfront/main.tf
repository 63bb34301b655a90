variable "v" {
  type = number
}

resource "aws_s3_bucket" "site" {
  bucket        = "tf-site"
  force_destroy = true
}
resource "aws_s3_object" "index" {
  bucket       = aws_s3_bucket.site.id
  key          = "index.html"
  content      = "<h1>hello</h1>"
  content_type = "text/html"
}
resource "aws_cloudfront_origin_access_control" "oac" {
  name                              = "tf-oac"
  description                       = "v${var.v}"
  origin_access_control_origin_type = "s3"
  signing_behavior                  = "always"
  signing_protocol                  = "sigv4"
}
resource "aws_cloudfront_origin_access_identity" "oai" { comment = "v${var.v}" }
resource "aws_cloudfront_cache_policy" "c" {
  name        = "tf-cache"
  comment     = "v${var.v}"
  default_ttl = 50 * var.v
  max_ttl     = 100
  min_ttl     = 1
  parameters_in_cache_key_and_forwarded_to_origin {
    enable_accept_encoding_gzip   = true
    enable_accept_encoding_brotli = true
    cookies_config {
      cookie_behavior = "whitelist"
      cookies { items = ["a", "b"] }
    }
    headers_config {
      header_behavior = "whitelist"
      headers { items = ["X-One"] }
    }
    query_strings_config {
      query_string_behavior = "whitelist"
      query_strings { items = ["q"] }
    }
  }
}
resource "aws_cloudfront_origin_request_policy" "o" {
  name    = "tf-origin"
  comment = "v${var.v}"
  cookies_config { cookie_behavior = "none" }
  headers_config {
    header_behavior = "whitelist"
    headers { items = ["X-Two"] }
  }
  query_strings_config { query_string_behavior = "all" }
}
resource "aws_cloudfront_response_headers_policy" "h" {
  name    = "tf-headers"
  comment = "v${var.v}"
  cors_config {
    access_control_allow_credentials = false
    access_control_allow_headers { items = ["*"] }
    access_control_allow_methods { items = ["GET", "HEAD"] }
    access_control_allow_origins { items = ["https://example.com"] }
    origin_override = true
  }
  security_headers_config {
    content_type_options { override = true }
    strict_transport_security {
      access_control_max_age_sec = 31536000
      include_subdomains         = true
      override                   = true
    }
    frame_options {
      frame_option = "DENY"
      override     = true
    }
  }
  custom_headers_config {
    items {
      header   = "X-V"
      value    = var.v
      override = true
    }
  }
  server_timing_headers_config {
    enabled       = true
    sampling_rate = 50
  }
}
resource "aws_cloudfront_key_value_store" "k" {
  name    = "tf-kvs"
  comment = "v${var.v}"
}
resource "aws_cloudfrontkeyvaluestore_key" "k" {
  key_value_store_arn = aws_cloudfront_key_value_store.k.arn
  key                 = "greeting"
  value               = "hello ${var.v}"
}
resource "aws_cloudfrontkeyvaluestore_keys_exclusive" "other" {
  key_value_store_arn = aws_cloudfront_key_value_store.k2.arn
  # Another key, not another value: the provider (5.100) puts a changed pair first
  # and then deletes the key of the old one.
  resource_key_value_pair {
    key   = "a${var.v}"
    value = "v"
  }
}
resource "aws_cloudfront_key_value_store" "k2" { name = "tf-kvs2" }
resource "aws_cloudfront_function" "f" {
  name                         = "tf-fn"
  runtime                      = "cloudfront-js-2.0"
  comment                      = "v${var.v}"
  publish                      = true
  code                         = "function handler(event) { var r = event.request; r.headers['x-v'] = {value: '${var.v}'}; return r; }"
  key_value_store_associations = [aws_cloudfront_key_value_store.k.arn]
}
resource "aws_cloudfront_public_key" "p" {
  name        = "tf-key"
  comment     = "v${var.v}"
  encoded_key = file("${path.module}/public.pem")
}
resource "aws_cloudfront_key_group" "g" {
  name    = "tf-group"
  comment = "v${var.v}"
  items   = [aws_cloudfront_public_key.p.id]
}
data "aws_iam_policy_document" "assume" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["lambda.amazonaws.com", "edgelambda.amazonaws.com"]
    }
  }
}
resource "aws_iam_role" "edge" {
  name               = "tf-edge"
  assume_role_policy = data.aws_iam_policy_document.assume.json
}
resource "aws_lambda_function" "edge" {
  function_name    = "tf-edge"
  role             = aws_iam_role.edge.arn
  runtime          = "nodejs22.x"
  handler          = "index.handler"
  filename         = "${path.module}/edge.zip"
  source_code_hash = filebase64sha256("${path.module}/edge.zip")
  publish          = true
}
data "aws_cloudfront_cache_policy" "managed" { name = "Managed-CachingOptimized" }
data "aws_cloudfront_origin_request_policy" "managed" { name = "Managed-CORS-S3Origin" }
data "aws_cloudfront_response_headers_policy" "managed" { name = "Managed-SimpleCORS" }
resource "aws_cloudfront_distribution" "d" {
  enabled             = true
  comment             = "v${var.v}"
  default_root_object = "index.html"
  price_class         = "PriceClass_100"
  is_ipv6_enabled     = true
  http_version        = "http2and3"
  origin {
    origin_id                = "site"
    domain_name              = aws_s3_bucket.site.bucket_regional_domain_name
    origin_access_control_id = aws_cloudfront_origin_access_control.oac.id
  }
  origin {
    origin_id   = "custom"
    domain_name = "example.com"
    custom_header {
      name  = "X-Secret"
      value = "v${var.v}"
    }
    custom_origin_config {
      http_port              = 80
      https_port             = 443
      origin_protocol_policy = "https-only"
      origin_ssl_protocols   = ["TLSv1.2"]
    }
  }
  default_cache_behavior {
    target_origin_id           = "site"
    viewer_protocol_policy     = "allow-all"
    allowed_methods            = ["GET", "HEAD"]
    cached_methods             = ["GET", "HEAD"]
    compress                   = true
    cache_policy_id            = aws_cloudfront_cache_policy.c.id
    origin_request_policy_id   = aws_cloudfront_origin_request_policy.o.id
    response_headers_policy_id = aws_cloudfront_response_headers_policy.h.id
    function_association {
      event_type   = "viewer-request"
      function_arn = aws_cloudfront_function.f.arn
    }
    lambda_function_association {
      event_type   = "origin-request"
      lambda_arn   = aws_lambda_function.edge.qualified_arn
      include_body = false
    }
  }
  ordered_cache_behavior {
    path_pattern           = "/private/*"
    target_origin_id       = "custom"
    viewer_protocol_policy = "redirect-to-https"
    allowed_methods        = ["GET", "HEAD", "OPTIONS", "PUT", "POST", "PATCH", "DELETE"]
    cached_methods         = ["GET", "HEAD", "OPTIONS"]
    cache_policy_id        = data.aws_cloudfront_cache_policy.managed.id
    trusted_key_groups     = [aws_cloudfront_key_group.g.id]
  }
  ordered_cache_behavior {
    path_pattern           = "/old/*"
    target_origin_id       = "custom"
    viewer_protocol_policy = "allow-all"
    allowed_methods        = ["GET", "HEAD"]
    cached_methods         = ["GET", "HEAD"]
    min_ttl                = 0
    default_ttl            = 60
    max_ttl                = 600
    forwarded_values {
      query_string = true
      headers      = ["Origin"]
      cookies { forward = "none" }
    }
  }
  custom_error_response {
    error_code            = 404
    response_code         = 200
    response_page_path    = "/index.html"
    error_caching_min_ttl = 10
  }
  restrictions {
    geo_restriction { restriction_type = "none" }
  }
  viewer_certificate { cloudfront_default_certificate = true }
  tags = { v = var.v }
}
resource "aws_cloudfront_distribution" "plain" {
  enabled = true
  origin {
    origin_id   = "custom"
    domain_name = "example.com"
    custom_origin_config {
      http_port              = 80
      https_port             = 443
      origin_protocol_policy = "https-only"
      origin_ssl_protocols   = ["TLSv1.2"]
    }
  }
  default_cache_behavior {
    target_origin_id       = "custom"
    viewer_protocol_policy = "allow-all"
    allowed_methods        = ["GET", "HEAD"]
    cached_methods         = ["GET", "HEAD"]
    cache_policy_id        = data.aws_cloudfront_cache_policy.managed.id
  }
  restrictions {
    geo_restriction {
      restriction_type = "whitelist"
      locations        = ["DE", "NL"]
    }
  }
  aliases = ["tf.example.org"]
  viewer_certificate {
    acm_certificate_arn      = aws_acm_certificate.c.arn
    ssl_support_method       = "sni-only"
    minimum_protocol_version = "TLSv1.2_2021"
  }
}
resource "aws_acm_certificate" "c" {
  private_key      = file("${path.module}/cert.key")
  certificate_body = file("${path.module}/cert.pem")
  tags             = { v = var.v }
}
resource "aws_kinesis_stream" "log" {
  name        = "tf-realtime"
  shard_count = 1
}
resource "aws_cloudfront_realtime_log_config" "r" {
  name          = "tf-rt"
  sampling_rate = 10 * var.v
  fields        = ["timestamp", "c-ip"]
  endpoint {
    stream_type = "Kinesis"
    kinesis_stream_config {
      role_arn   = aws_iam_role.edge.arn
      stream_arn = aws_kinesis_stream.log.arn
    }
  }
}
data "aws_cloudfront_distribution" "d" { id = aws_cloudfront_distribution.d.id }
data "aws_cloudfront_function" "f" {
  name  = aws_cloudfront_function.f.name
  stage = "LIVE"
}
data "aws_acm_certificate" "c" {
  domain     = "tf.example.org"
  statuses   = ["ISSUED"]
  depends_on = [aws_acm_certificate.c]
}

resource "aws_s3_bucket_policy" "site" {
  bucket = aws_s3_bucket.site.id
  policy = jsonencode({ Version = "2012-10-17", Statement = [{
    Effect    = "Allow", Principal = { Service = "cloudfront.amazonaws.com" }, Action = "s3:GetObject", Resource = "${aws_s3_bucket.site.arn}/*",
    Condition = { StringEquals = { "AWS:SourceArn" = aws_cloudfront_distribution.d.arn } }
  }] })
}
