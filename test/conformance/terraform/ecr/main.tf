variable "v" {
  type = number
}

resource "aws_ecr_repository" "r" {
  name                 = "tf/repo"
  image_tag_mutability = var.v == 1 ? "MUTABLE" : "IMMUTABLE"
  force_delete         = true
  tags                 = { v = var.v }
}
resource "aws_ecr_lifecycle_policy" "l" {
  repository = aws_ecr_repository.r.name
  policy     = jsonencode({ rules = [{ rulePriority = 1, description = "v${var.v}", selection = { tagStatus = "untagged", countType = "imageCountMoreThan", countNumber = var.v }, action = { type = "expire" } }] })
}
resource "aws_ecr_repository_policy" "p" {
  repository = aws_ecr_repository.r.name
  policy     = jsonencode({ Version = "2012-10-17", Statement = [{ Sid = "v${var.v}", Effect = "Allow", Principal = { Service = "lambda.amazonaws.com" }, Action = ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"] }] })
}
data "aws_ecr_repository" "r" { name = aws_ecr_repository.r.name }
data "aws_ecr_authorization_token" "t" {}
