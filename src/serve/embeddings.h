// POST /v1/embeddings, as OpenAI has it: what leaves the final norm for each token, its mean over the text, of length one.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/mat.h"
#include "serve/job.h"
#include "serve/openai.h"

namespace hadal {

class MeanPool {
 public:
  void add(Mat<const float> rows);
  std::vector<float> unit(int64_t dimensions) const;  // the first so many, of length one; 0: all

 private:
  std::vector<double> sum_;
};

class EmbeddingJob : public std::enable_shared_from_this<EmbeddingJob> {  // as Job is
 public:
  EmbeddingJob(const JobContext& context, const EmbeddingCall& call, std::string model, std::shared_ptr<Visit> visit,
               std::shared_ptr<HttpReply> reply);
  void attach(size_t input, Request& request);
  void expire() { overdue_ = true; }

 private:
  void on_finish(int64_t tokens, Finish how);

  const JobContext context_;
  const EmbeddingCall call_;
  const std::string model_;
  const std::shared_ptr<Visit> visit_;
  const std::shared_ptr<HttpReply> reply_;
  std::vector<MeanPool> pools_;
  size_t finished_ = 0;
  int64_t tokens_ = 0;
  bool cancelled_ = false;
  std::atomic<bool> overdue_{false};
};

}  // namespace hadal
