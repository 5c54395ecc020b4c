#include "serve/embeddings.h"

#include <bit>
#include <cmath>
#include <nlohmann/json.hpp>

namespace hadal {
namespace {

using Json = nlohmann::ordered_json;

std::string base64_of(const std::vector<float>& values) {
  static_assert(std::endian::native == std::endian::little);  // as clients read them
  static constexpr char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  const std::string_view bytes(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
  std::string text;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    const std::string_view three = bytes.substr(i, 3);
    uint32_t bits = 0;
    for (size_t k = 0; k < 3; ++k) bits = bits << 8 | (k < three.size() ? uint8_t(three[k]) : 0);
    for (size_t k = 0; k < 4; ++k) text += k <= three.size() ? digits[bits >> (18 - 6 * k) & 63] : '=';
  }
  return text;
}

}  // namespace

void MeanPool::add(Mat<const float> rows) {
  sum_.resize(size_t(rows.cols));
  for (int64_t r = 0; r < rows.rows; ++r)
    for (int64_t i = 0; i < rows.cols; ++i) sum_[size_t(i)] += double(rows.row(r)[i]);
}

std::vector<float> MeanPool::unit(int64_t dimensions) const {
  const size_t count = dimensions > 0 ? size_t(dimensions) : sum_.size();
  double squares = 0;
  for (size_t i = 0; i < count; ++i) squares += sum_[i] * sum_[i];
  const double scale = squares > 0 ? 1 / std::sqrt(squares) : 0;  // the mean has the sum's direction
  std::vector<float> out(count);
  for (size_t i = 0; i < count; ++i) out[i] = float(sum_[i] * scale);
  return out;
}

EmbeddingJob::EmbeddingJob(const JobContext& context, const EmbeddingCall& call, std::string model, std::shared_ptr<Visit> visit,
                           std::shared_ptr<HttpReply> reply)
    : context_(context),
      call_(call),
      model_(std::move(model)),
      visit_(std::move(visit)),
      reply_(std::move(reply)),
      pools_(call.inputs.size()) {}

void EmbeddingJob::attach(size_t input, Request& request) {
  request.max_tokens = 1;
  request.on_hidden = [job = shared_from_this(), input](Mat<const float> rows) { job->pools_[input].add(rows); };
  request.on_token = [](const Token&) { return false; };
  const int64_t tokens = int64_t(request.prompt.size());
  request.on_finish = [job = shared_from_this(), tokens](Finish how) { job->on_finish(tokens, how); };
}

void EmbeddingJob::on_finish(int64_t tokens, Finish how) {
  tokens_ += tokens;
  if (how != Finish::cancelled)
    context_.metrics.prompt_read(tokens, std::chrono::duration<double>(Visit::Clock::now() - visit_->arrival).count());
  cancelled_ |= how == Finish::cancelled;
  if (++finished_ < pools_.size()) return;
  visit_->finish = !cancelled_ ? "stop" : overdue_ ? "timeout" : "cancelled";
  if (cancelled_ && overdue_) {
    const ApiError late(408, "the texts were not read within the time that this request has", "timeout", "timeout");
    return reply_->send(408, "application/json", openai_error(late));
  }
  if (cancelled_) return;
  Json data = Json::array();
  for (const MeanPool& pool : pools_) {
    const std::vector<float> unit = pool.unit(call_.dimensions);
    data.push_back({{"object", "embedding"}, {"index", data.size()}, {"embedding", call_.base64 ? Json(base64_of(unit)) : Json(unit)}});
  }
  const Json usage{{"prompt_tokens", tokens_}, {"total_tokens", tokens_}};
  reply_->send(200, "application/json", to_text(Json{{"object", "list"}, {"data", std::move(data)}, {"model", model_}, {"usage", usage}}));
}

}  // namespace hadal
