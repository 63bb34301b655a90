# frozen_string_literal: true

module Lapwing
  # Speaks HTTP/1.1 with the Runtime API over one connection that stays open.
  # Net::HTTP would do, but loading it takes as long as the rest of the start.
  class Client
    # An answer; its headers are found by their names in any case.
    Response = Struct.new(:status, :headers, :body) do
      def [](name) = headers[name.downcase]
    end

    class Failed < StandardError; end

    def initialize(address)
      @address = address
      @agent = "lapwing-ruby/#{RUBY_VERSION}"
    end

    def next
      response = request('GET', '/runtime/invocation/next')
      raise Failed, "the Runtime API answered #{response.status} when asked for the next event" unless response.status == 200

      response
    end

    # Waits until this environment is to go on, of which a snapshot may be taken
    # now, unless it is unfit for one: then that is why. Returns what differs.
    def restore_next(unfit)
      headers = unfit.empty? ? {} : { 'Lapwing-Unfit' => unfit.gsub(/[^ -~]/, '?') }
      response = request('GET', '/runtime/restore/next', nil, headers)
      raise Failed, "the Runtime API answered #{response.status} when asked to be restored" unless response.status == 200

      response.body
    end

    # Posts and returns the answer. One that is refused is told to the caller.
    def post(path, body, headers = {})
      request('POST', "/runtime/#{path}", body, headers)
    end

    private

    def request(method, path, body = nil, headers = {})
      headers = { 'Host' => @address, 'User-Agent' => @agent, **headers }
      headers['Content-Length'] = body.bytesize if body
      head = headers.map { |name, value| "#{name}: #{value.to_s.tr("\r\n", '  ')}\r\n" }.join
      connect
      @socket.write("#{method} /2018-06-01#{path} HTTP/1.1\r\n#{head}\r\n".b, body ? body.b : '')
      read
    end

    def connect
      return if @socket && !@socket.closed?

      @socket = local || tcp
    end

    # Where Lapwing serves the API, it does so on a Unix socket too, which costs
    # less than TCP.
    def local
      UNIXSocket.new("\0lapwing:#{@address}")
    rescue SystemCallError
      nil
    end

    def tcp
      host, _, port = @address.rpartition(':')
      socket = TCPSocket.new(host, Integer(port))
      socket.setsockopt(Socket::IPPROTO_TCP, Socket::TCP_NODELAY, 1)
      socket
    end

    def read
      status = Integer(line.split[1])
      headers = {}
      until (text = line).empty?
        name, _, value = text.partition(':')
        headers[name.downcase] = value.strip
      end
      body = headers['transfer-encoding'] == 'chunked' ? chunks : exactly(headers['content-length'].to_i)
      @socket.close if headers['connection'] == 'close'
      Response.new(status, headers, body)
    end

    def line
      text = @socket.gets("\r\n") or raise Failed, 'the Runtime API closed the connection'
      text.chomp("\r\n")
    end

    def exactly(size)
      return +'' if size.zero?

      body = @socket.read(size)
      raise Failed, 'the Runtime API broke off' if body.nil? || body.bytesize < size

      body
    end

    def chunks
      body = +''.b
      until (size = line.hex).zero?
        body << exactly(size)
        line
      end
      nil until line.empty? # trailers
      body
    end
  end
end
