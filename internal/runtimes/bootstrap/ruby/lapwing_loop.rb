# frozen_string_literal: true

module Lapwing
  # Takes one event after the other.
  class Loop
    # Exit codes, as AWS's runtime has them.
    HANDLER_BROKE = -1
    INIT_FAILED = -4

    class << self
      attr_accessor :request_id
    end

    # snapshot is nil where none can be taken.
    def initialize(client, snapshot)
      @client = client
      @snapshot = snapshot
    end

    # Runs the function until it must end, and returns the exit code.
    def run(name)
      $LOAD_PATH.unshift(Dir.pwd) unless $LOAD_PATH.include?(Dir.pwd)
      handler = Handler.new(name)
      require handler.file
    rescue Exception => e # rubocop:disable Lint/RescueException
      fault = Fault.new(e, 'Init')
      fault.log('Init error when loading handler')
      @client.post('init/error', JSON.generate(fault.body), 'Content-Type' => 'application/json', 'Lambda-Runtime-Function-Error-Type' => fault.told_type)
      INIT_FAILED
    else
      @snapshot&.wait(@client)
      loop do
        code = one(handler)
        return code if code
      end
    end

    private

    # Runs one invocation; an exit code ends the process. What the Runtime API
    # does wrong ends it as well.
    def one(handler)
      event = @client.next
      id = Loop.request_id = event['Lambda-Runtime-Aws-Request-Id']
      ENV['_X_AMZN_TRACE_ID'] = event['Lambda-Runtime-Trace-Id'] if event['Lambda-Runtime-Trace-Id']
      begin
        body, type = handler.call(AwsLambda::Marshaller.marshall_request(event), LambdaContext.new(event))
      rescue SignalException
        raise # the environment ends
      rescue Exception => e # rubocop:disable Lint/RescueException
        return failed(id, e)
      end
      answer(id, body, type)
    end

    def answer(id, body, type)
      response = @client.post("invocation/#{id}/response", body, 'Content-Type' => type)
      warn "the Runtime API refused the response: #{response.body}" if response.status >= 400
      nil
    end

    # An error that is not the function's own logic ends the process: nothing of
    # its code can be relied on.
    def failed(id, error)
      critical = error.is_a?(NameError) || !error.is_a?(StandardError)
      fault = Fault.new(error, 'Function')
      fault.log(critical ? 'Critical exception from handler' : 'Error raised from handler method')
      @client.post("invocation/#{id}/error", JSON.generate(fault.body), 'Content-Type' => 'application/json', 'Lambda-Runtime-Function-Error-Type' => fault.told_type)
      HANDLER_BROKE if critical
    end
  end
end
