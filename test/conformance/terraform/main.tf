# One configuration a service, all of which one run of Terraform makes: starting
# its provider is what takes most of the time. Nothing of it is for Lapwing. The
# test applies it with v = 1, and changes it with v = 2.
terraform {
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 5.0"
    }
  }
}

provider "aws" {
  default_tags {
    tags = { made = "by Terraform" }
  }
}

variable "v" {
  type = number
}

variable "image" {
  type = string
}

module "acm" {
  source = "./acm"
  v      = var.v
}

module "cloudfront" {
  source = "./cloudfront"
  v      = var.v
}

module "ecr" {
  source = "./ecr"
  v      = var.v
}

module "iam" {
  source = "./iam"
  v      = var.v
}

module "kinesis" {
  source = "./kinesis"
  v      = var.v
}

module "lambda" {
  source = "./lambda"
  v      = var.v
  image  = var.image
}

module "logs" {
  source = "./logs"
  v      = var.v
}

module "s3" {
  source = "./s3"
  v      = var.v
}
