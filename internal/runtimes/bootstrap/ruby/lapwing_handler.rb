# frozen_string_literal: true

module AwsLambda
  # How events and responses become objects and bytes. Functions may replace
  # both methods, as AWS documents.
  class Marshaller
    class << self
      def marshall_request(raw_request)
        return raw_request.body unless raw_request['Content-Type'] == 'application/json'

        JSON.parse(raw_request.body)
      end

      # The body, and its content type where that is not JSON.
      def marshall_response(method_response)
        case method_response
        when StringIO, IO then [method_response, 'application/unknown']
        else method_response.to_json
        end
      end
    end
  end
end

module Lapwing
  # The function's method: FILE.METHOD or FILE.CLASS.METHOD.
  class Handler
    attr_reader :file

    def initialize(name)
      parts = name.split('.')
      unless [2, 3].include?(parts.size)
        raise ArgumentError, "Invalid handler #{parts}, must be of form FILENAME.METHOD or FILENAME.CLASS.METHOD " \
                             'where FILENAME corresponds with an existing Ruby source file FILENAME.rb, CLASS is an optional ' \
                             'module/class namespace and METHOD is a callable method. If using CLASS, METHOD must be a class-level method.'
      end
      @file, *@owner, @method = parts
    end

    # Returns the response's bytes and content type.
    def call(event, context)
      owner = @owner.empty? ? Object.new : Kernel.const_get(@owner.first)
      result = owner.__send__(@method, event: event, context: context)
      body, type = AwsLambda::Marshaller.marshall_response(result)
      body = body.read if type == 'application/unknown'
      [body, type || 'application/json']
    end
  end
end
